//! The supervisor of a child process.

use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::cleaner::{Cleaner, Leftovers};
use crate::process::cause::{Cause, Stopped, is_last_word};
use crate::process::worker::{self, EVENT, LINE_END, PLACE, Worker};
use crate::process::{Limits, SUPERVISED, activity};

/// How long the supervisor waits for output before it checks the process and the time.
const TICK: Duration = Duration::from_millis(20);
/// The maximum time counted between two checks: after more, the machine was suspended.
const LONGEST_TICK: Duration = Duration::from_secs(1);
/// How long the supervisor reads remaining output after the process has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The maximum number of bytes of last words that are held back.
const MOST_WORDS: usize = 64 << 10;
/// The maximum length in bytes of a line that is read whole.
const LONGEST_LINE: u64 = 1 << 16;

/// The limits and output files of a supervised process.
#[derive(Clone, Debug, Default)]
pub struct Supervision {
    /// The memory and time limits.
    pub limits: Limits,
    /// The files that the process writes. Its unfinished files in their folders are removed.
    pub outputs: Vec<PathBuf>,
}

/// An event reported by a supervised process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A stage begins.
    Stage(&'e str),
    /// The number of completed steps of the stage, and the number of all its steps.
    Step(usize, usize),
    /// There is no more progress to show.
    Finished,
    /// An error message, sent with [`send_error`](super::send_error).
    Error(&'e str),
    /// Bytes that the process wrote to stderr.
    Text(&'e [u8]),
}

/// How a supervised process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The process exited with this code.
    Code(u8),
    /// The process crashed, or was stopped.
    Stopped(Stopped),
}

/// The error type of [`supervised`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisionError {
    /// No temporary files can be created.
    #[error(
        "{}: cannot write temporary files: {source}; free space, or set TMPDIR to another folder",
        folder.display()
    )]
    Temporary {
        /// The folder for temporary files.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The child process cannot be started or read from.
    #[error("cannot start or supervise the child process: {0}")]
    Process(#[from] io::Error),
}

/// Runs `work` in a child process and supervises it. The child's memory and time are limited, a
/// crash is returned as a value, and temporary files are removed no matter how either process ends.
///
/// The child is the same program with the same arguments. When it reaches this call, it runs `work`
/// and exits with the code that `work` returns; the call returns only in the supervisor. The child
/// inherits stdin and stdout. Its stderr is passed to `listen`, as is its progress if it uses a
/// [`Reporter`](super::Reporter).
///
/// The program must call [`child_main_if_requested`](super::child_main_if_requested) first in its
/// `main`.
///
/// # Errors
/// Returns an error if the child cannot be started.
pub fn supervised(
    supervision: &Supervision,
    listen: &mut dyn FnMut(Event<'_>),
    work: impl FnOnce() -> u8,
) -> Result<Ended, SupervisionError> {
    if worker::is_supervised() {
        worker::serve(work);
    }
    let folder = temporary()?;
    let leftovers = Leftovers { mark: mark(&folder), places: places(&supervision.outputs), folder };
    let cleaner = match Cleaner::start(&leftovers) {
        Ok(cleaner) => cleaner,
        Err(error) => {
            let _ = std::fs::remove_dir(&leftovers.folder);
            return Err(error.into());
        }
    };
    let ended = start(supervision, &leftovers)
        .and_then(|child| Watched::new(child).watch(supervision, &leftovers, listen));
    cleaner.finish();
    Ok(ended?)
}

/// Creates a folder for the child's temporary files. The cleaner removes it.
fn temporary() -> Result<PathBuf, SupervisionError> {
    let folder = tempfile::Builder::new().prefix("hardtack-").tempdir();
    let failed = |source| SupervisionError::Temporary { folder: std::env::temp_dir(), source };
    folder.map(tempfile::TempDir::keep).map_err(failed)
}

/// Returns the name prefix of the child's unfinished files, from the random name of its folder.
fn mark(folder: &std::path::Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    format!(".{}-", name.unwrap_or_default().replace(' ', "_"))
}

/// Returns the folders of the output files, and of the targets of symbolic links.
fn places(outputs: &[PathBuf]) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for output in outputs {
        let real = output.canonicalize().ok();
        for path in [Some(output), real.as_ref()].into_iter().flatten() {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(std::path::Path::new("."));
            places.extend(folder.canonicalize());
        }
    }
    places.sort();
    places.dedup();
    places
}

/// Starts the child process.
fn start(supervision: &Supervision, leftovers: &Leftovers) -> io::Result<Child> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(_name) = arguments.next() {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut command, _name);
    }
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    command.args(arguments);
    command.env(SUPERVISED, Worker::variable(&supervision.limits, &leftovers.mark, terminal));
    let folder = if cfg!(windows) { "TMP" } else { "TMPDIR" };
    command.env(folder, &leftovers.folder);
    give_back(&mut command);
    command.stderr(Stdio::piped()).spawn()
}

/// Makes glibc return large blocks to the system as soon as they are freed. By default, glibc
/// raises its threshold after the first large block is freed and keeps later ones, so the freed
/// tensors of a conversion would accumulate. This crate forbids unsafe code, so it cannot call
/// `mallopt`; the environment variable takes effect only when a process starts.
fn give_back(command: &mut Command) {
    const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
    /// The size in bytes from which freed blocks are returned.
    const THRESHOLD: &str = "131072";
    let glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    if glibc && std::env::var_os(VARIABLE).is_none() {
        command.env(VARIABLE, THRESHOLD);
    }
}

/// A supervised child.
struct Watched {
    child: Child,
    /// The current stage.
    stage: String,
    /// The message of the panic that the child reported.
    panic: Option<String>,
    /// Lines that may be the child's last words. They are held back until more output decides.
    words: Vec<u8>,
    /// Whether one of them is a message that only an aborting process writes.
    dying: bool,
}

impl Watched {
    fn new(child: Child) -> Watched {
        let (stage, words) = (String::new(), Vec::new());
        Watched { child, stage, panic: None, words, dying: false }
    }

    /// Passes on output until the child has ended or its time limit expires.
    fn watch(
        mut self,
        supervision: &Supervision,
        leftovers: &Leftovers,
        listen: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<Ended> {
        let limits = &supervision.limits;
        let lines = lines(self.child.stderr.take());
        let limit = Duration::from_secs(limits.seconds);
        let (mut spent, mut before) = (Duration::ZERO, Instant::now());
        let (status, in_time) = loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => self.line(&line, listen),
                // The child may close its stderr and keep running.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                break (status, true);
            }
            let now = Instant::now();
            spent += (now - before).min(LONGEST_TICK);
            before = now;
            if spent >= limit {
                self.child.kill()?;
                break (self.child.wait()?, false);
            }
        };
        let end = Instant::now();
        while let Ok(line) = lines.recv_timeout(LAST_WORDS.saturating_sub(end.elapsed())) {
            self.line(&line, listen);
        }
        Ok(self.ended(status, in_time, limits, leftovers, listen))
    }

    /// Determines how the child ended.
    fn ended(
        mut self,
        status: ExitStatus,
        in_time: bool,
        limits: &Limits,
        leftovers: &Leftovers,
        listen: &mut dyn FnMut(Event<'_>),
    ) -> Ended {
        let words = std::mem::take(&mut self.words);
        let cause = match (in_time, self.panic.take(), status.code()) {
            (false, ..) => Cause::Time { seconds: limits.seconds },
            (true, Some(message), _) => Cause::of_panic(&message, limits),
            (true, None, Some(code)) => {
                if !words.is_empty() {
                    listen(Event::Text(&words));
                }
                listen(Event::Finished);
                return Ended::Code(u8::try_from(code).unwrap_or(u8::MAX));
            }
            (true, None, None) => Cause::of(status, &String::from_utf8_lossy(&words), limits),
        };
        listen(Event::Finished);
        let doing = activity::last(&leftovers.folder.join(PLACE));
        let place = match (doing.is_empty(), self.stage.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!("in stage {:?}", self.stage),
            (false, true) => doing,
            (false, false) => format!("{doing}, in stage {:?}", self.stage),
        };
        Ended::Stopped(Stopped { cause, place })
    }

    /// Handles a line of the child's stderr.
    fn line(&mut self, line: &[u8], listen: &mut dyn FnMut(Event<'_>)) {
        let text = String::from_utf8_lossy(line);
        let Some(event) = text.strip_prefix(EVENT) else {
            self.words.extend_from_slice(line);
            // A backtrace may follow the first of the last words.
            self.dying |= is_last_word(&text);
            let blank = text.trim().is_empty();
            if !(self.dying || blank) || self.words.len() > MOST_WORDS {
                listen(Event::Text(&self.words));
                self.words.clear();
                self.dying = false;
            }
            return;
        };
        let event = event.trim_end_matches('\n').replace(LINE_END, "\n");
        let (kind, rest) = event.split_once(' ').unwrap_or((&event, ""));
        match kind {
            "stage" => {
                self.stage = rest.into();
                listen(Event::Stage(rest));
            }
            "step" => {
                let numbers = rest.split_once(' ');
                let numbers = numbers.map(|(done, of)| (done.parse(), of.parse()));
                if let Some((Ok(done), Ok(of))) = numbers {
                    listen(Event::Step(done, of));
                }
            }
            "finished" => listen(Event::Finished),
            "error" => listen(Event::Error(rest)),
            "panic" => self.panic = Some(rest.into()),
            _ => {}
        }
    }
}

/// Reads the lines of a stream on a thread. Lines keep their line ends; very long lines are split.
fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    /// The maximum number of queued lines. A process that writes faster blocks.
    const WAITING: usize = 256;
    let (sender, receiver) = sync_channel(WAITING);
    let follow = |sender: SyncSender<Vec<u8>>| {
        let Some(stream) = stream else { return };
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        }
    };
    thread::spawn(move || follow(sender));
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the events for these lines of a child's stderr, and the child's final state.
    fn received(written: &[&str]) -> (Vec<String>, Watched) {
        let child = Command::new(std::env::current_exe().unwrap());
        let child = { child }.arg("--list").stdout(Stdio::null()).spawn().unwrap();
        let mut watched = Watched::new(child);
        let mut received = Vec::new();
        let mut listen = |event: Event<'_>| {
            received.push(match event {
                Event::Text(text) => String::from_utf8(text.into()).unwrap(),
                event => format!("{event:?}"),
            });
        };
        written.iter().for_each(|line| watched.line(line.as_bytes(), &mut listen));
        watched.child.wait().unwrap();
        (received, watched)
    }

    #[test]
    fn events_are_separated_from_text() {
        let lines = [
            "\u{1e}stage fold\n",
            "\u{1e}step 3 10\n",
            "\u{1e}step 3 many\n",
            "\u{1e}finished \n",
            "\u{1e}error a.onnx: one\u{1f}two\n",
            "warning: stage\n",
        ];
        let (received, watched) = received(&lines);
        let error = r#"Error("a.onnx: one\ntwo")"#;
        assert_eq!(
            received,
            [r#"Stage("fold")"#, "Step(3, 10)", "Finished", error, "warning: stage\n"]
        );
        assert_eq!(watched.stage, "fold");
    }

    #[test]
    fn last_words_are_held_back_until_more_text_follows() {
        let bomb = "memory allocation of 9 bytes failed\n";
        let frame = "   0: std::alloc::rust_oom\n";
        let (words, watched) = received(&["\n", bomb, frame]);
        assert!(words.is_empty() && watched.words == format!("\n{bomb}{frame}").as_bytes());
        let (words, watched) = received(&["\n", "words\n"]);
        assert!(words == ["\nwords\n"] && watched.words.is_empty());
    }

    #[test]
    fn folders_of_link_targets_are_searched_for_unfinished_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/model.tack"), "x").unwrap();
        let outputs = [root.join("model.tack"), root.join("none/model.tack")];
        assert_eq!(places(&outputs), std::slice::from_ref(&root));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("real/model.tack", root.join("model.tack")).unwrap();
            assert_eq!(places(&outputs), [root.clone(), root.join("real")]);
        }
    }
}
