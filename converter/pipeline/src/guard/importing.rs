//! Imports a model in a child process, or on a thread if the program does not support children.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::child::{ALL, SEPARATOR};
use super::panics::on_thread;
use super::{IMPORT, INSTALLED, child, transfer};
use crate::import::{Evaluated, ImportError, ImportOptions, Imported, import};
use crate::process::cause::{Cause, Stopped};
use crate::process::worker::{PLACE, temporary_folder};
use crate::process::{Limits, activity};

/// Imports a file in a child process; see [the module's documentation](super).
///
/// # Errors
/// Returns an [`ImportError`]. [`ImportError::Stopped`] reports a crash or an exceeded limit.
///
/// # Examples
///
/// ```
/// use hardtack_converter::guard::{Limits, import_guarded};
/// use hardtack_converter::import::ImportOptions;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// std::fs::write("model.onnx", b"\x08\x07 damaged")?;
/// let limits = Limits { seconds: 60, ..Limits::default() };
/// let error = import_guarded("model.onnx".as_ref(), &ImportOptions::default(), &limits);
/// println!("{}", error.unwrap_err());
/// # Ok(())
/// # }
/// ```
pub fn import_guarded(
    path: &Path,
    options: &ImportOptions,
    limits: &Limits,
) -> Result<Imported, ImportError> {
    if INSTALLED.load(Ordering::Relaxed) {
        in_process(path, options, limits)
    } else {
        let panicked = |message: String| Cause::Panic { message };
        on_thread(|| import(path, options), panicked)
    }
}

fn in_process(
    path: &Path,
    options: &ImportOptions,
    limits: &Limits,
) -> Result<Imported, ImportError> {
    let temporary =
        |problem: String| ImportError::Temporary { folder: temporary_folder(), problem };
    let folder = tempfile::tempdir().map_err(|error| temporary(error.to_string()))?;
    let (result, noted) = (folder.path().join("imported"), folder.path().join(PLACE));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(IMPORT).arg(&result).arg(path);
    let numbers = [limits.memory_bytes, limits.seconds, std::process::id().into()];
    command.args(numbers.map(|number| number.to_string()));
    command.arg(match &options.evaluated {
        Evaluated::All => ALL.into(),
        Evaluated::Nodes(nodes) => nodes.join(SEPARATOR),
    });
    for (name, value) in &options.set {
        command.arg(name).arg(value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let words = child.stderr.take();
    let words = thread::spawn(move || words.map_or_else(String::new, last_words));
    let status = wait(&mut child, Duration::from_secs(limits.seconds))?;
    let words = words.join().unwrap_or_default();
    let cause = match status {
        Some(status) if status.success() => {
            return transfer::read(&result)?;
        }
        Some(status) if status.code() == Some(child::NOT_WRITTEN) => {
            return Err(temporary(words.trim().into()));
        }
        Some(status) => Cause::of(status, &words, limits),
        None => Cause::Time { seconds: limits.seconds },
    };
    Err(ImportError::Stopped(Stopped { cause, place: activity::last(&noted) }))
}

/// Waits for a process. If the time limit expires, kills it and returns `None`.
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

/// Reads a stream to its end, and returns the first `KEPT` bytes.
fn last_words(mut stream: impl Read) -> String {
    const KEPT: u64 = 64 << 10;
    let mut words = Vec::new();
    let _ = stream.by_ref().take(KEPT).read_to_end(&mut words);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    String::from_utf8_lossy(&words).into_owned()
}
