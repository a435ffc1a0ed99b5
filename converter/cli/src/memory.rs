//! How memory is given back.

/// Starts this program anew where the C library would keep large blocks that are free: glibc does so
/// once it has seen one go, and tensors come and go in a conversion. It can be told otherwise only
/// when a program begins. Returns where there is nothing to tell, or that fails.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    use std::os::unix::process::CommandExt as _;
    /// Blocks of so many bytes or more go back to the system as soon as they are free.
    const THRESHOLD: &str = "131072";
    const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It comes back only where it fails.
    let _ = command.args(arguments).env(VARIABLE, THRESHOLD).exec();
}

/// Nothing is to be told here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
