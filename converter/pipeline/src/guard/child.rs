//! The import process.

use std::ffi::OsString;
use std::path::PathBuf;

use log::LevelFilter;

use super::panics::on_thread;
use super::transfer;
use crate::import::{Evaluated, ImportError, ImportOptions, import};
use crate::process::cause::Cause;
use crate::process::worker::{PLACE, limit, watch_parent};
use crate::process::{Limits, activity};

/// The exit code if the result cannot be written.
pub(super) const NOT_WRITTEN: i32 = 3;
/// The argument that stands for all nodes, and the separator of the names of some.
pub(super) const ALL: &str = "\u{1}all";
pub(super) const SEPARATOR: &str = "\u{1}";

/// Runs the import that the arguments describe and returns the exit code, or `None` if the
/// arguments are not valid.
pub(super) fn serve(arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    let written = Request::read(arguments)?.serve();
    Some(written.map_or_else(
        |error| {
            eprintln!("{error}");
            NOT_WRITTEN
        },
        |()| 0,
    ))
}

struct Request {
    result: PathBuf,
    model: PathBuf,
    limits: Limits,
    /// The process id of the parent.
    parent: u32,
    options: ImportOptions,
}

impl Request {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Option<Request> {
        let (result, model) = (arguments.next()?.into(), arguments.next()?.into());
        let mut texts = arguments.map(|argument| argument.into_string().ok());
        let limits = Limits {
            memory_bytes: texts.next()??.parse().ok()?,
            seconds: texts.next()??.parse().ok()?,
        };
        let parent = texts.next()??.parse().ok()?;
        let evaluated = texts.next()??;
        let mut options = ImportOptions {
            evaluated: match evaluated.as_str() {
                ALL => Evaluated::All,
                names => {
                    let names = names.split(SEPARATOR).filter(|name| !name.is_empty());
                    Evaluated::Nodes(names.map(String::from).collect())
                }
            },
            ..ImportOptions::default()
        };
        while let Some(name) = texts.next() {
            options.set.push((name?, texts.next()??));
        }
        Some(Request { result, model, limits, parent, options })
    }

    fn serve(&self) -> std::io::Result<()> {
        limit(&self.limits);
        #[cfg(unix)]
        let _ = rlimit::setrlimit(
            rlimit::Resource::CPU,
            self.limits.seconds,
            self.limits.seconds.saturating_add(1),
        );
        watch_parent(self.parent);
        activity::keep_in(&self.result.with_file_name(PLACE))?;
        let _ = activity::set_logger(Box::new(Nothing), LevelFilter::Off);
        std::panic::set_hook(Box::new(|_| {}));
        let panicked = |message: String| Cause::of_panic(&message, &self.limits);
        let mut imported = on_thread(|| import(&self.model, &self.options), panicked);
        if let Err(ImportError::Stopped(stopped)) = &mut imported {
            stopped.place = activity::last(&self.result.with_file_name(PLACE));
        }
        activity::note("returning the result");
        transfer::write(&self.result, &imported)
    }
}

/// A logger that discards all records.
struct Nothing;

impl log::Log for Nothing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_storage_full_error() {
        let imported = Err(crate::import::ImportError::Malformed("x".repeat(1 << 16)));
        let error = transfer::write("/dev/full".as_ref(), &imported).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}
