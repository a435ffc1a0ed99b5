//! Determines how much memory this process may use.

use std::path::{Path, PathBuf};

/// The share of the memory that a conversion may use, in percent.
const SHARE: u64 = 80;
/// The limit in bytes if the system does not report its memory.
const UNKNOWN: u64 = 16 << 30;

/// Returns the default memory limit in bytes: a fixed share of the physical memory, the control
/// group's limit or the process's own limit, whichever is the least.
pub(super) fn memory_bytes() -> u64 {
    let least = [physical(), control_groups(), own_limit()].into_iter().flatten().min();
    least.map_or(UNKNOWN, |bytes| bytes / 100 * SHARE)
}

/// Returns the physical memory in bytes, if the system reports it.
fn physical() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Returns the least memory limit of the control groups of this process.
fn control_groups() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limits_of(&groups, Path::new("/sys/fs/cgroup")).min()
}

/// Returns the memory limits of control groups and their ancestors. `groups` has the format of
/// `/proc/self/cgroup`. The root is included, as a container may see its own group as the root.
fn limits_of(groups: &str, root: &Path) -> impl Iterator<Item = u64> {
    let mut files: Vec<PathBuf> = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        // Version 2 lists no controllers; version 1 has one tree per controller.
        let (tree, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| tree.join(group).join(file)));
    }
    // A group without a limit has "max" (not a number) or a number near the maximum.
    files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// Returns the address space limit of this process, if there is one.
fn own_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        let (soft, _) = rlimit::getrlimit(rlimit::Resource::AS).ok()?;
        (soft != rlimit::INFINITY).then_some(soft)
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_applies() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let least = |groups: &str| limits_of(groups, folder.path()).min();
        assert_eq!(least("0::/user/job\n"), None);
        write("user/job/memory.max", "max\n");
        write("user/memory.max", "4000\n");
        assert_eq!(least("0::/user/job\n"), Some(4000));
        write("memory/job/memory.limit_in_bytes", "3000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let groups = "9:name=systemd:/\n4:cpuacct,memory:/job\n1:cpu:/\n0::/user/job\n";
        assert_eq!(least(groups), Some(3000));
        // In a container, the group's path may not exist, and the root is the group.
        write("memory.max", "2000\n");
        assert_eq!(least("0::/elsewhere\n"), Some(2000));
        assert_eq!(least("nonsense\n::\n"), Some(2000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_default_limit_is_below_the_physical_memory() {
        let (bytes, physical) = (memory_bytes(), physical().unwrap());
        assert!(bytes > 0 && bytes < physical, "{bytes} of {physical}");
    }
}
