//! Imports foreign files in a process of their own, with limits.
//!
//! A malformed ONNX file can make its reader panic, run for ever, or ask for more memory than
//! there is. The import therefore runs in a second process of the same program, which gives its
//! result back through a file; whatever happens to it becomes one sentence here.
//!
//! A program takes part by calling [`child_main_if_requested`] first in its `main`.
//!
//! In programs that do not, such as tests, [`import_guarded`] runs on a thread of this process:
//! panics become errors, but neither memory nor time is limited.

mod child;
mod transfer;

use std::io::{BufRead, BufReader, Read};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use child::child_main_if_requested;

use crate::import::{ImportError, ImportOptions, Imported, import};

/// The first argument that makes a process the importing one.
const REQUEST: &str = "__import";
/// Stack of the importing thread: what nested expressions may need.
const STACK: usize = 64 << 20;
/// Whether this program can be started as the importing process.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// What an import may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space in bytes, where the system can limit it.
    pub memory_bytes: u64,
    /// Seconds on the clock, and of processor time.
    pub seconds: u64,
}

impl Default for Limits {
    /// 16 GiB and ten minutes.
    fn default() -> Limits {
        Limits { memory_bytes: 16 << 30, seconds: 600 }
    }
}

/// Imports a file where it can do no harm; see the module's documentation.
///
/// # Errors
/// [`ImportError`], of which [`ImportError::Stopped`] is what the guard found.
pub fn import_guarded(
    path: &Path,
    options: &ImportOptions,
    limits: &Limits,
) -> Result<Imported, ImportError> {
    if INSTALLED.load(Ordering::Relaxed) {
        in_process(path, options, limits)
    } else {
        on_thread(|| import(path, options))
    }
}

/// Runs an import on a thread with enough stack and turns a panic into an error.
fn on_thread(
    import: impl FnOnce() -> Result<Imported, ImportError> + Send,
) -> Result<Imported, ImportError> {
    let guarded = || {
        std::panic::catch_unwind(AssertUnwindSafe(import)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("without a message").lines().next().unwrap_or("");
            Err(ImportError::Stopped(format!(
                "the file breaks an assumption of the reader ({text}); check it with onnx.checker"
            )))
        })
    };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("import".into()).stack_size(STACK);
        match builder.spawn_scoped(scope, guarded)?.join() {
            Ok(result) => result,
            Err(_) => Err(ImportError::Stopped("the import ended without a word".into())),
        }
    })
}

fn in_process(
    path: &Path,
    options: &ImportOptions,
    limits: &Limits,
) -> Result<Imported, ImportError> {
    let folder = tempfile::tempdir()?;
    let result = folder.path().join("imported");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(REQUEST).arg(&result).arg(path);
    command.arg(limits.memory_bytes.to_string()).arg(limits.seconds.to_string());
    for (name, value) in &options.set {
        command.arg(name).arg(value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let place = follow(child.stdout.take());
    let words = follow(child.stderr.take());
    let status = wait(&mut child, Duration::from_secs(limits.seconds))?;
    let (place, words) = (place.finish(), words.finish());
    match status {
        Some(status) if status.success() => transfer::read(&result)?,
        status => Err(ImportError::Stopped(diagnose(status, &words, &place, limits))),
    }
}

/// Waits until a process ends, or ends it when its time is over and returns `None`.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The end of an importing process in words.
fn diagnose(status: Option<ExitStatus>, words: &str, place: &str, limits: &Limits) -> String {
    const ABORT: i32 = 6;
    const KILL: i32 = 9;
    const PROCESSOR_TIME: i32 = 24;
    #[cfg(unix)]
    let signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
    #[cfg(not(unix))]
    let signal = None;
    let time = format!("it took more than {} seconds", limits.seconds);
    let memory = format!("it needs more than {} MiB of memory", limits.memory_bytes >> 20);
    let reason = match (status, signal) {
        (None, _) | (_, Some(PROCESSOR_TIME)) => time,
        _ if words.contains("memory allocation") => memory,
        (_, Some(KILL)) => "the system ended it, most likely for want of memory".into(),
        (_, Some(ABORT)) if words.contains("overflowed its stack") => {
            "the file nests too deep".into()
        }
        (Some(status), _) => format!("it ended with {status}"),
    };
    if place.is_empty() { reason } else { format!("{reason} while {place}") }
}

/// Follows what a process writes and keeps the last line.
struct Follow {
    last: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

fn follow(stream: Option<impl Read + Send + 'static>) -> Follow {
    const LONGEST: u64 = 4096;
    let last = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&last);
    let thread = thread::spawn(move || {
        let Some(stream) = stream else { return };
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    if let (false, Ok(mut last)) = (text.is_empty(), shared.lock()) {
                        *last = text;
                    }
                }
            }
        }
    });
    Follow { last, thread }
}

impl Follow {
    fn finish(self) -> String {
        let _ = self.thread.join();
        self.last.lock().map(|last| last.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        let error = on_thread(|| panic!("no such {}", "axis")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the import was stopped: the file breaks an assumption of the reader (no such axis); \
             check it with onnx.checker"
        );
    }

    #[cfg(unix)]
    #[test]
    fn ends_of_processes_are_told_apart() {
        use std::os::unix::process::ExitStatusExt;
        let limits = Limits { memory_bytes: 1 << 30, seconds: 5 };
        let by = |signal| Some(ExitStatus::from_raw(signal));
        let bomb = "memory allocation of 1099511627776 bytes failed";
        for (status, words, sentence) in [
            (None, "", "it took more than 5 seconds while reading node \"a\""),
            (by(24), "", "it took more than 5 seconds while reading node \"a\""),
            (by(6), bomb, "it needs more than 1024 MiB of memory while reading node \"a\""),
        ] {
            assert_eq!(diagnose(status, words, "reading node \"a\"", &limits), sentence);
        }
    }
}
