//! Where a process is in its work, written down for the process that watches it.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

/// Bytes of the file: one note, filled up with spaces.
const BYTES: usize = 256;
/// Targets of the log records that name the place of the work.
const TARGETS: [&str; 4] =
    [crate::import::STAGE, "tract_onnx::model", "tract_hir::infer::analyser", "tract_core::plan"];
/// How those of tract begin, and what stands for that in a note.
const BEGINNINGS: [(&str, &str); 3] = [
    ("Creating node ", "reading node "),
    ("Starting step for ", "finding the shapes of "),
    ("Running step ", "running "),
];

/// The notes of this process, if another watches it.
static NOTES: OnceLock<Notes> = OnceLock::new();

/// A file of one note, the latest.
struct Notes(File);

impl Notes {
    fn create(path: &Path) -> io::Result<Notes> {
        File::create(path).map(Notes)
    }

    /// Writes the words that follow "while"; they need not fit.
    fn write(&self, doing: &str) {
        let mut bytes = [b' '; BYTES];
        let end = doing.floor_char_boundary(BYTES);
        bytes[..end].copy_from_slice(&doing.as_bytes()[..end]);
        let mut file = &self.0;
        // A note is a help, not a result.
        let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes));
    }
}

/// Notes the places of this process in a file from now on.
pub(super) fn keep_in(path: &Path) -> io::Result<()> {
    let _ = NOTES.set(Notes::create(path)?);
    Ok(())
}

/// Notes what this process does.
pub(super) fn note(doing: &str) {
    if let Some(notes) = NOTES.get() {
        notes.write(doing);
    }
}

/// The place that a process noted last; empty where it noted none.
pub(super) fn last(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(BYTES as u64).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    // It becomes part of a sentence on a terminal, and the names in it are foreign.
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().trim().into()
}

/// Makes `inner` this program's logger, and notes from what tract logs which node is read or run.
///
/// # Errors
/// Where the program has a logger already.
pub fn set_logger(inner: Box<dyn Log>, level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let watched = NOTES.get().is_some();
    log::set_boxed_logger(Box::new(Noting { inner, level }))?;
    log::set_max_level(if watched { LevelFilter::Trace } else { level });
    Ok(())
}

/// A logger that takes notes.
struct Noting {
    inner: Box<dyn Log>,
    /// What `inner` wants to see.
    level: LevelFilter,
}

impl Log for Noting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_place(metadata) || metadata.level() <= self.level && self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_place(record.metadata()) {
            note_record(record);
        }
        if record.level() <= self.level {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// Whether a log record names the place of the work.
fn is_place(metadata: &Metadata<'_>) -> bool {
    NOTES.get().is_some() && TARGETS.contains(&metadata.target())
}

fn note_record(record: &Record<'_>) {
    if record.target() == crate::import::STAGE {
        note(&record.args().to_string());
    } else if let Some(doing) = doing(record.args()) {
        note(&doing);
    }
}

/// What tract does, by what it logs; `None` for all else it logs.
fn doing(words: &fmt::Arguments<'_>) -> Option<String> {
    let mut head = Head(String::new());
    // It ends early where the words are others, or long.
    let _ = head.write_fmt(*words);
    let (beginning, stands_for) =
        BEGINNINGS.iter().find(|(beginning, _)| head.0.starts_with(beginning))?;
    let rest = &head.0[beginning.len()..];
    // The number of a step means nothing to a user.
    let node = match *stands_for {
        "running " => rest.split_once(", ")?.1,
        _ => rest,
    };
    Some(format!("{stands_for}{node}"))
}

/// The beginning of a text, cut to the length of a place.
struct Head(String);

impl fmt::Write for Head {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        let fits = BEGINNINGS.iter().any(|(beginning, _)| {
            self.0.starts_with(beginning) || beginning.starts_with(self.0.as_str())
        });
        if fits && self.0.len() <= BYTES { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_known_and_plain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("place");
        assert_eq!(last(&path), "");
        let notes = Notes::create(&path).unwrap();
        notes.write("finding the shapes of a long name");
        notes.write("running node \"y\u{1b}[31m\"");
        assert_eq!(last(&path), "running node \"y [31m\"");
        // Cut between characters.
        notes.write(&"é".repeat(BYTES));
        assert_eq!(last(&path), "é".repeat(BYTES / 2));
        notes.write("");
        assert_eq!(last(&path), "");
    }

    #[test]
    fn what_tract_logs_tells_the_node() {
        let name = "mm";
        let told = |words: fmt::Arguments<'_>| doing(&words);
        assert_eq!(told(format_args!("Creating node {name}")).unwrap(), "reading node mm");
        let step = told(format_args!("Running step {}, node #3 {name:?} MatMul", 7));
        assert_eq!(step.unwrap(), "running node #3 \"mm\" MatMul");
        assert_eq!(told(format_args!("  use input {name:?}")), None);
        assert_eq!(told(format_args!("Run")), None);
    }

    #[test]
    fn other_records_are_not_written_out() {
        struct Costly;
        impl fmt::Display for Costly {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("written out");
            }
        }
        assert_eq!(doing(&format_args!("  use input {Costly}")), None);
    }
}
