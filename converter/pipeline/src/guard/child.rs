//! The importing process.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::Ordering;

use log::{LevelFilter, Log, Metadata, Record};

use super::{INSTALLED, Limits, REQUEST, on_thread, transfer};
use crate::import::{ImportOptions, import};

/// Imports and ends this process, if it was started to do so. Programs call it first in `main`,
/// before they start threads or read arguments.
pub fn child_main_if_requested() {
    INSTALLED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != REQUEST) {
        return;
    }
    let Some(request) = Request::read(arguments) else {
        eprintln!("this form of the program is for itself alone");
        exit(2);
    };
    exit(match request.serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    });
}

struct Request {
    result: PathBuf,
    model: PathBuf,
    limits: Limits,
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
        let mut options = ImportOptions::default();
        while let Some(name) = texts.next() {
            options.set.push((name?, texts.next()??));
        }
        Some(Request { result, model, limits, options })
    }

    fn serve(&self) -> std::io::Result<()> {
        #[cfg(unix)]
        {
            use rlimit::{Resource, setrlimit};
            setrlimit(Resource::CORE, 0, 0)?;
            // Not every system can limit the address space; the clock is watched everywhere.
            let _ = setrlimit(Resource::AS, self.limits.memory_bytes, self.limits.memory_bytes);
            let _ = setrlimit(Resource::CPU, self.limits.seconds, self.limits.seconds + 1);
        }
        if log::set_boxed_logger(Box::new(Breadcrumbs)).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
        std::panic::set_hook(Box::new(|_| {}));
        let imported = on_thread(|| import(&self.model, &self.options));
        crumb("giving the result back");
        transfer::write(&self.result, &imported)
    }
}

/// Tells the other process where this one is, from what tract logs.
struct Breadcrumbs;

impl Log for Breadcrumbs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        matches!(
            metadata.target(),
            "tract_onnx::model" | "tract_hir::infer::analyser" | crate::import::STAGE
        )
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.target() == crate::import::STAGE {
            crumb(&record.args().to_string());
            return;
        }
        let text = record.args().to_string();
        for (start, doing) in
            [("Creating node ", "reading node "), ("Starting step for ", "finding the shapes of ")]
        {
            if let Some(node) = text.strip_prefix(start) {
                crumb(&format!("{doing}{node}"));
            }
        }
    }

    fn flush(&self) {}
}

fn crumb(place: &str) {
    const LONGEST: usize = 200;
    let line: String =
        place.chars().take(LONGEST).map(|c| if c == '\n' { ' ' } else { c }).collect();
    let _ = writeln!(std::io::stdout(), "{line}");
}
