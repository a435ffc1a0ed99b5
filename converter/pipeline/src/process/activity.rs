//! Records the current activity of a child process in a file for its parent.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

/// The target of the log records that name the current step of the import.
pub(crate) const STAGE: &str = "hardtack_converter::import";
/// The size of the file in bytes: one note, padded with spaces.
const BYTES: usize = 256;
/// The targets of the log records that name the current activity.
const TARGETS: [&str; 4] =
    [STAGE, "tract_onnx::model", "tract_hir::infer::analyser", "tract_core::plan"];
/// The prefixes of tract's log records, and their replacements in a note.
const BEGINNINGS: [(&str, &str); 3] = [
    ("Creating node ", "reading node "),
    ("Starting step for ", "finding the shapes of "),
    ("Running step ", "running "),
];

/// The notes of this process, if a parent reads them.
static NOTES: OnceLock<Notes> = OnceLock::new();

/// A file that contains the latest note.
struct Notes(File);

impl Notes {
    fn create(path: &Path) -> io::Result<Notes> {
        File::create(path).map(Notes)
    }

    /// Writes a phrase that follows "while", truncated to [`BYTES`] bytes.
    fn write(&self, doing: &str) {
        let mut bytes = [b' '; BYTES];
        let end = doing.floor_char_boundary(BYTES);
        bytes[..end].copy_from_slice(&doing.as_bytes()[..end]);
        let mut file = &self.0;
        // Notes are only diagnostics: ignore errors.
        let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes));
    }
}

/// Starts recording the activity of this process in a file.
pub(crate) fn keep_in(path: &Path) -> io::Result<()> {
    let _ = NOTES.set(Notes::create(path)?);
    Ok(())
}

/// Records the current activity of this process.
pub(crate) fn note(doing: &str) {
    if let Some(notes) = NOTES.get() {
        notes.write(doing);
    }
}

/// Returns the last note of a process; empty if there is none.
pub(crate) fn last(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(BYTES as u64).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    // The note is printed to a terminal and contains untrusted names: remove control characters.
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().trim().into()
}

/// Installs `inner` as this program's logger. In a child process, tract's log records are also used
/// to record which node is being read or run.
///
/// # Errors
/// Returns an error if the program already has a logger.
pub fn set_logger(inner: Box<dyn Log>, level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let watched = NOTES.get().is_some();
    log::set_boxed_logger(Box::new(Noting { inner, level }))?;
    log::set_max_level(if watched { LevelFilter::Trace } else { level });
    Ok(())
}

/// A logger that also records the current activity.
struct Noting {
    inner: Box<dyn Log>,
    /// The maximum level for `inner`.
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

/// Returns whether a log record names the current activity.
fn is_place(metadata: &Metadata<'_>) -> bool {
    NOTES.get().is_some() && TARGETS.contains(&metadata.target())
}

fn note_record(record: &Record<'_>) {
    if record.target() == STAGE {
        note(&record.args().to_string());
    } else if let Some(doing) = doing(record.args()) {
        note(&doing);
    }
}

/// Translates a log record of tract to an activity. Returns `None` for other records.
fn doing(words: &fmt::Arguments<'_>) -> Option<String> {
    let mut head = Head(String::new());
    // Formatting stops early if no prefix matches or the text is long.
    let _ = head.write_fmt(*words);
    let (beginning, stands_for) =
        BEGINNINGS.iter().find(|(beginning, _)| head.0.starts_with(beginning))?;
    let rest = &head.0[beginning.len()..];
    // Drop the step number, which means nothing to a user.
    let node = match *stands_for {
        "running " => rest.split_once(", ")?.1,
        _ => rest,
    };
    Some(format!("{stands_for}{node}"))
}

/// A prefix of a formatted text, limited to about [`BYTES`] bytes.
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
    fn the_last_note_is_read_without_control_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("place");
        assert_eq!(last(&path), "");
        let notes = Notes::create(&path).unwrap();
        notes.write("finding the shapes of a long name");
        notes.write("running node \"y\u{1b}[31m\"");
        assert_eq!(last(&path), "running node \"y [31m\"");
        // Notes are truncated at character boundaries.
        notes.write(&"é".repeat(BYTES));
        assert_eq!(last(&path), "é".repeat(BYTES / 2));
        notes.write("");
        assert_eq!(last(&path), "");
    }

    #[test]
    fn tract_log_records_name_the_node() {
        let name = "mm";
        let activity = |words: fmt::Arguments<'_>| doing(&words);
        assert_eq!(activity(format_args!("Creating node {name}")).unwrap(), "reading node mm");
        let step = activity(format_args!("Running step {}, node #3 {name:?} MatMul", 7));
        assert_eq!(step.unwrap(), "running node #3 \"mm\" MatMul");
        assert_eq!(activity(format_args!("  use input {name:?}")), None);
        assert_eq!(activity(format_args!("Run")), None);
    }

    #[test]
    fn other_records_are_not_formatted() {
        struct Costly;
        impl fmt::Display for Costly {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("written out");
            }
        }
        assert_eq!(doing(&format_args!("  use input {Costly}")), None);
    }
}
