//! `hardtack unpack`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use anyhow::{Context as _, anyhow};
use hardtack_converter::{Error, WholeFile};
use hardtack_transport::UnpackError;
use serde_json::json;

use crate::Answer;
use crate::arguments::Unpack;
use crate::output::{self, bytes, print};

pub fn unpack(arguments: &Unpack, as_json: bool) -> anyhow::Result<Answer> {
    let path = &arguments.file;
    let packed = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut bundle = WholeFile::new(&arguments.output)?;
    let summary = match hardtack_transport::unpack(Std(BufReader::new(packed)), Std(&mut bundle)) {
        Ok(summary) => summary,
        Err(UnpackError::Read(error)) => {
            return Err(error).with_context(|| format!("{}: cannot be read", path.display()));
        }
        Err(UnpackError::Write(source)) => {
            return Err(Error::Write { path: arguments.output.clone(), source }.into());
        }
        Err(error) => {
            let error = anyhow!("{}: {error}", path.display());
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
        let file = arguments.output.display();
        print(&format!("{file}: {}, root digest {digest}", bytes(summary.length)));
    }
    Ok(Answer::Yes)
}

/// A reader or writer of the standard library, as the runtime takes them.
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
