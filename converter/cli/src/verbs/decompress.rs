//! `hardtack decompress`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use anyhow::{Context as _, anyhow};
use hardtack_converter::WriteError;
use hardtack_transport::{
    DEFAULT_LIMIT, Memory, UnpackError, UnpackOptions, most_bytes, unpack_with,
};
use serde_json::json;

use crate::arguments::Decompress;
use crate::output::Answer;
use crate::output::file::{self, Output};
use crate::output::{self, bytes, plain};

pub fn decompress(arguments: &Decompress, as_json: bool) -> anyhow::Result<Answer> {
    let (path, place) = (&arguments.file, arguments.output.as_path());
    file::check(&[place], &[path], as_json)?;
    let cannot_read = || format!("{}: cannot be read", path.display());
    let packed = File::open(path).with_context(cannot_read)?;
    let found = packed.metadata().with_context(cannot_read)?;
    let mut bundle = Output::new(place)?;
    let limits = Limits {
        // The length of a pipe is unknown.
        holds: if found.is_file() { most_bytes(found.len()) } else { u64::MAX },
        asked: arguments.max_size,
        room: bundle.room().unwrap_or(u64::MAX),
    };
    let options = UnpackOptions { limit: limits.least() };
    let (reader, writer) = (Std(BufReader::new(packed)), Std(&mut bundle));
    let summary = match unpack_with(&mut Memory::new(), reader, writer, &options) {
        Ok(summary) => summary,
        Err(UnpackError::Read(error)) => return Err(error).with_context(cannot_read),
        Err(UnpackError::Write(source)) => {
            return Err(WriteError::Write { path: place.into(), source }.into());
        }
        Err(UnpackError::TooLarge { length, .. })
            if length > limits.room && length <= limits.allowed() =>
        {
            return Err(anyhow!(
                "{}: the bundle needs {}, but only {} of disk space is free; free some space, or \
                 choose another folder",
                place.display(),
                bytes(length),
                bytes(limits.room)
            ));
        }
        Err(error) => {
            let error = match error {
                UnpackError::TooLarge { length, .. } => limits.refusal(length),
                error => anyhow!("{error}"),
            };
            let error = error.context(path.display().to_string());
            if as_json {
                output::json(&json!({ "unpacked": false, "problem": output::sentence(&error) }));
            }
            output::error(&error);
            return Ok(Answer::No);
        }
    };
    bundle.put()?;
    let digest = summary.root.to_string();
    if as_json {
        let length = summary.length;
        output::json(&json!({ "unpacked": true, "bundle_bytes": length, "digest": digest }));
    } else {
        let name = place.display().to_string();
        let text = format!("{}: {}, root digest {digest}", plain(&name), bytes(summary.length));
        file::summary(&[place], &text);
    }
    Ok(Answer::Yes)
}

/// Limits on the size of the decompressed bundle, in bytes.
struct Limits {
    /// The maximum that a compressed file of this length can expand to.
    holds: u64,
    /// `--max-size`.
    asked: Option<u64>,
    /// Free disk space at the output.
    room: u64,
}

impl Limits {
    /// Returns the limit without regard to disk space.
    fn allowed(&self) -> u64 {
        self.holds.min(self.asked.unwrap_or(DEFAULT_LIMIT))
    }

    /// Returns the limit to apply. An explicit `--max-size` overrides the disk space check.
    fn least(&self) -> u64 {
        self.allowed().min(if self.asked.is_some() { u64::MAX } else { self.room })
    }

    /// Explains why a bundle of this length is refused.
    fn refusal(&self, length: u64) -> anyhow::Error {
        let states = format!("it states a bundle size of {}", bytes(length));
        match length > self.holds {
            true => anyhow!(
                "{states}, but a file of its length expands to at most {}; it is damaged or \
                 malicious",
                bytes(self.holds)
            ),
            false => anyhow!(
                "{states}, more than the limit of {}; raise the limit with --max-size",
                bytes(self.allowed())
            ),
        }
    }
}

/// Adapts a reader or writer of the standard library to the traits of `embedded_io`.
struct Std<T>(T);

impl<T> embedded_io::ErrorType for Std<T> {
    type Error = io::Error;
}

impl<T: Read> embedded_io::Read for Std<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl<T: Write> embedded_io::Write for Std<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
