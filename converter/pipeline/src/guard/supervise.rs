//! The supervisor of a process that does the work.

use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::cleaner::{Cleaner, Leftovers};
use super::ends::{Cause, Stopped, is_last_word};
use super::worker::{self, EVENT, LINE_END, PLACE, Worker};
use super::{Limits, SUPERVISED, place};

/// How long the supervisor waits for words before it looks at the process and the clock.
const TICK: Duration = Duration::from_millis(20);
/// More time than this between two looks is none of the process's: both were suspended.
const LONGEST_TICK: Duration = Duration::from_secs(1);
/// How long last words may come after the end of a process.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most bytes of last words that are kept back.
const MOST_WORDS: usize = 64 << 10;
/// Longest line that is read as one.
const LONGEST_LINE: u64 = 1 << 16;

/// What a supervised process may do, and where.
#[derive(Clone, Debug, Default)]
pub struct Supervision {
    /// Memory and time that it may take.
    pub limits: Limits,
    /// The files that it writes: unfinished files next to them are removed.
    pub outputs: Vec<PathBuf>,
}

/// What a supervised process reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A stage begins.
    Stage(&'e str),
    /// The number of steps of a stage that are done, and the number of all its steps.
    Step(usize, usize),
    /// There is no more progress to show.
    Finished,
    /// An error as one sentence, sent with [`send_error`](super::send_error).
    Error(&'e str),
    /// Bytes that the process wrote to stderr.
    Text(&'e [u8]),
}

/// How a supervised process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// By itself, with this exit code.
    Code(u8),
    /// Otherwise.
    Stopped(Stopped),
}

/// Why a process cannot be supervised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisionError {
    /// No temporary files can be made.
    #[error(
        "{}: no temporary files can be written there: {source}; make room, or set TMPDIR to another \
         folder",
        folder.display()
    )]
    Temporary {
        /// The folder for temporary files.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process cannot be started or listened to.
    #[error("the process that does the work cannot be started: {0}")]
    Process(#[from] io::Error),
}

/// Does work in a child of this process, and watches it: a crash of the work becomes an answer, its
/// memory and time are limited, and its temporary files go whatever ends it or this process.
///
/// The child is the same program with the same arguments. It comes here too, does the work and ends
/// with the exit code that `work` returns; the call returns only in the process that supervises. The
/// child has stdin and stdout of this process. What it writes to stderr comes to `listen`, and so does
/// its progress where it reports that to a [`Reporter`](super::Reporter).
///
/// A program must call [`child_main_if_requested`](super::child_main_if_requested) first in its
/// `main`.
///
/// # Errors
/// Where the child cannot be started.
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

/// A folder for the temporary files of the child alone. It stays until the cleaner removes it.
fn temporary() -> Result<PathBuf, SupervisionError> {
    let folder = tempfile::Builder::new().prefix("hardtack-").tempdir();
    let failed = |source| SupervisionError::Temporary { folder: std::env::temp_dir(), source };
    folder.map(tempfile::TempDir::keep).map_err(failed)
}

/// How the names of unfinished files of one child begin: by the name of its folder, which is random.
fn mark(folder: &std::path::Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    format!(".{}-", name.unwrap_or_default().replace(' ', "_"))
}

/// The folders of files, of those also that links lead to.
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

/// Starts the child.
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

/// Has the C library of a process give large blocks back as soon as they are free: glibc keeps them once
/// it has seen one go, and tensors come and go in a conversion. It can be told otherwise only when a
/// process begins.
fn give_back(command: &mut Command) {
    const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
    /// Blocks of this many bytes or more are given back.
    const THRESHOLD: &str = "131072";
    let glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    if glibc && std::env::var_os(VARIABLE).is_none() {
        command.env(VARIABLE, THRESHOLD);
    }
}

/// A child that is watched.
struct Watched {
    child: Child,
    /// The stage it is in.
    stage: String,
    /// The panic it reported.
    panic: Option<String>,
    /// Lines that may be its last words, which are kept back until that is clear.
    words: Vec<u8>,
    /// Whether one of them is only said by a process that dies.
    dying: bool,
}

impl Watched {
    fn new(child: Child) -> Watched {
        let (stage, words) = (String::new(), Vec::new());
        Watched { child, stage, panic: None, words, dying: false }
    }

    /// Watches until the child has ended.
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
                // It may close its stderr and live on.
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

    /// What the end of the child means.
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
        let doing = place::last(&leftovers.folder.join(PLACE));
        let place = match (doing.is_empty(), self.stage.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!("in stage {:?}", self.stage),
            (false, true) => doing,
            (false, false) => format!("{doing}, in stage {:?}", self.stage),
        };
        Ended::Stopped(Stopped { cause, place })
    }

    /// Takes a line of the child's stderr.
    fn line(&mut self, line: &[u8], listen: &mut dyn FnMut(Event<'_>)) {
        let text = String::from_utf8_lossy(line);
        let Some(event) = text.strip_prefix(EVENT) else {
            self.words.extend_from_slice(line);
            // More may follow the first of them: where memory ran out, who asked for it.
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

/// The lines of a stream, with their ends; a very long line comes in pieces.
fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    /// Lines that wait at most: a process that writes faster than it is read has to wait.
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

    /// What is heard of a child that writes these lines, and what is kept back.
    fn heard(written: &[&str]) -> (Vec<String>, Watched) {
        let child = Command::new(std::env::current_exe().unwrap());
        let child = { child }.arg("--list").stdout(Stdio::null()).spawn().unwrap();
        let mut watched = Watched::new(child);
        let mut heard = Vec::new();
        let mut listen = |event: Event<'_>| {
            heard.push(match event {
                Event::Text(text) => String::from_utf8(text.into()).unwrap(),
                event => format!("{event:?}"),
            });
        };
        written.iter().for_each(|line| watched.line(line.as_bytes(), &mut listen));
        watched.child.wait().unwrap();
        (heard, watched)
    }

    #[test]
    fn events_are_told_from_words() {
        let lines = [
            "\u{1e}stage fold\n",
            "\u{1e}step 3 10\n",
            "\u{1e}step 3 many\n",
            "\u{1e}finished \n",
            "\u{1e}error a.onnx: one\u{1f}two\n",
            "warning: stage\n",
        ];
        let (heard, watched) = heard(&lines);
        let error = r#"Error("a.onnx: one\ntwo")"#;
        assert_eq!(
            heard,
            [r#"Stage("fold")"#, "Step(3, 10)", "Finished", error, "warning: stage\n"]
        );
        assert_eq!(watched.stage, "fold");
    }

    #[test]
    fn last_words_are_kept_back_until_others_follow() {
        let bomb = "memory allocation of 9 bytes failed\n";
        let frame = "   0: std::alloc::rust_oom\n";
        let (words, watched) = heard(&["\n", bomb, frame]);
        assert!(words.is_empty() && watched.words == format!("\n{bomb}{frame}").as_bytes());
        let (words, watched) = heard(&["\n", "words\n"]);
        assert!(words == ["\nwords\n"] && watched.words.is_empty());
    }

    #[test]
    fn unfinished_files_are_sought_where_links_lead() {
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
