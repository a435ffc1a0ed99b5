//! The supervised process.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use super::cause::panic_message;
use super::{Limits, SUPERVISED, WATCHED_EVERY, activity};
use crate::progress::Progress;

/// The first character of a line on stderr that is an event for the supervisor, not text.
pub(crate) const EVENT: char = '\u{1e}';
/// Replaces a line end within an event.
pub(crate) const LINE_END: char = '\u{1f}';

/// The name of the file in the temporary folder where a child records its current activity.
pub(crate) const PLACE: &str = "place";

/// The state of a supervised process.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The process id of the supervisor.
    supervisor: u32,
    /// The memory and time limits.
    pub limits: Limits,
    /// The name prefix of unfinished files.
    mark: String,
    /// Whether the supervisor's stderr is a terminal.
    terminal: bool,
    /// The private temporary folder.
    folder: PathBuf,
}

static WORKER: OnceLock<Worker> = OnceLock::new();

/// Returns the state of this process if it is supervised.
pub(crate) fn worker() -> Option<&'static Worker> {
    WORKER.get()
}

impl Worker {
    /// Returns the value of the environment variable [`SUPERVISED`] for a child of this process.
    pub(crate) fn variable(limits: &Limits, mark: &str, terminal: bool) -> String {
        let Limits { memory_bytes, seconds } = limits;
        format!("{} {memory_bytes} {seconds} {mark} {terminal}", std::process::id())
    }

    /// Parses the variable. Returns `None` if it was inherited and is meant for another process.
    fn read(variable: &str) -> Option<Worker> {
        let mut parts = variable.split(' ');
        let supervisor: u32 = parts.next()?.parse().ok()?;
        if parent().is_some_and(|parent| parent != supervisor) {
            return None;
        }
        let limits = Limits {
            memory_bytes: parts.next()?.parse().ok()?,
            seconds: parts.next()?.parse().ok()?,
        };
        let (mark, terminal) = (parts.next()?.into(), parts.next()?.parse().ok()?);
        Some(Worker { supervisor, limits, mark, terminal, folder: std::env::temp_dir() })
    }
}

/// Applies the limits of a supervised process, if this process was started as one.
pub(crate) fn begin() {
    let Some(worker) = std::env::var(SUPERVISED).ok().and_then(|text| Worker::read(&text)) else {
        return;
    };
    limit(&worker.limits);
    watch_parent(worker.supervisor);
    let _ = activity::keep_in(&worker.folder.join(PLACE));
    let _ = WORKER.set(worker);
}

/// The memory limit of this process in bytes, if it is a child.
static LIMIT: OnceLock<u64> = OnceLock::new();

/// Returns the memory limit of this process in bytes, if it is a child.
pub(crate) fn limit_bytes() -> Option<u64> {
    LIMIT.get().copied()
}

/// Applies the memory limit to this process, and disables core dumps, where the system supports it.
pub(crate) fn limit(limits: &Limits) {
    let _ = LIMIT.set(limits.memory_bytes);
    #[cfg(unix)]
    {
        use rlimit::{Resource, getrlimit, setrlimit};
        let _ = setrlimit(Resource::CORE, 0, 0);
        // Not every system can limit the address space. The parent enforces the time limit.
        let hard = getrlimit(Resource::AS).map_or(rlimit::INFINITY, |(_, hard)| hard);
        let memory = limits.memory_bytes.min(hard);
        let _ = setrlimit(Resource::AS, memory, memory);
    }
}

/// Returns the process id of the parent, if the system reports it.
pub(crate) fn parent() -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    None
}

/// Starts a thread that aborts this process soon after its parent has ended.
pub(crate) fn watch_parent(expected: u32) {
    const STACK: usize = 64 << 10;
    let watch = move || {
        while parent().is_none_or(|parent| parent == expected) {
            std::thread::sleep(WATCHED_EVERY);
        }
        std::process::abort();
    };
    if parent().is_some() {
        let builder = std::thread::Builder::new().name("watch".into()).stack_size(STACK);
        let _ = builder.spawn(watch);
    }
}

/// Runs the work of a supervised process and exits with its code. Reports a panic to the
/// supervisor.
pub(crate) fn serve(work: impl FnOnce() -> u8) -> ! {
    std::panic::set_hook(Box::new(|panic| log::debug!("{panic}")));
    let code = std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        send("panic", &panic_message(&*panic));
        1
    });
    std::process::exit(code.into())
}

/// Returns whether this process is supervised.
pub fn is_supervised() -> bool {
    worker().is_some()
}

/// Returns whether stderr is a terminal; in a supervised process, whether the supervisor's is.
pub fn stderr_is_terminal() -> bool {
    match worker() {
        Some(worker) => worker.terminal,
        None => std::io::IsTerminal::is_terminal(&std::io::stderr()),
    }
}

/// Returns the user's folder for temporary files; in a supervised process, the parent of its
/// private folder.
pub fn temporary_folder() -> PathBuf {
    let own = worker().and_then(|worker| worker.folder.parent());
    own.map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Returns the name prefix of unfinished files. A supervisor removes the ones that remain.
pub fn unfinished_prefix() -> &'static str {
    worker().map_or(".hardtack-", |worker| &worker.mark)
}

/// Sends an error to the supervisor, which reports it as an
/// [`Event::Error`](crate::guard::Event::Error).
pub fn send_error(text: &str) {
    send("error", text);
}

fn send(kind: &str, text: &str) {
    let text = text.replace('\n', &LINE_END.to_string());
    let line = format!("{EVENT}{kind} {text}\n");
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Sends the progress of a supervised process to its supervisor.
#[derive(Debug, Default)]
pub struct Reporter {
    /// The time at which the last step was sent.
    last: Option<std::time::Instant>,
}

/// The minimum time between two sent steps. More frequent updates cannot be read.
const STEPS_EVERY: Duration = Duration::from_millis(20);

impl Progress for Reporter {
    fn stage(&mut self, name: &'static str) {
        activity::note("");
        self.last = None;
        send("stage", name);
    }

    fn step(&mut self, done: usize, of: usize) {
        let now = std::time::Instant::now();
        if done < of && self.last.is_some_and(|last| now - last < STEPS_EVERY) {
            return;
        }
        self.last = Some(now);
        send("step", &format!("{done} {of}"));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        send("finished", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_child_of_a_supervisor_is_supervised() {
        let limits = Limits { memory_bytes: 7, seconds: 9 };
        let own = Worker::variable(&limits, ".hardtack-x-", true);
        let Some(parent) = parent() else { return };
        // This process is not a child of itself.
        assert!(Worker::read(&own).is_none());
        let (_, rest) = own.split_once(' ').unwrap();
        let worker = Worker::read(&format!("{parent} {rest}")).unwrap();
        assert_eq!((worker.limits, worker.mark.as_str()), (limits, ".hardtack-x-"));
        assert!(worker.terminal);
        assert!(Worker::read("").is_none() && Worker::read(&format!("{parent} 7")).is_none());
    }
}
