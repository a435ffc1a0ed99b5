//! Outputs of a command: files, or standard output for the name `-`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use hardtack_converter::{AtomicFile, WriteError, check_output, samples};

use super::{print, say_lines, write_out};

/// Returns whether an output is standard output.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks the outputs of a command before it starts any work. Each must be a regular file or a new
/// name in an existing folder; no two may be the same file, and none may be an input or a sample in
/// a folder of samples.
///
/// # Errors
/// When an output fails a check. Nothing has been written.
pub fn check(outputs: &[&Path], inputs: &[&Path], as_json: bool) -> anyhow::Result<()> {
    let to_stdout = outputs.iter().filter(|path| is_stdout(path)).count();
    if to_stdout > 1 {
        bail!("only one output can be -; give the name of a file for the others");
    }
    if to_stdout > 0 && as_json {
        bail!("--json and - both write to standard output; give the name of a file for the output");
    }
    let files: Vec<&Path> = outputs.iter().copied().filter(|path| !is_stdout(path)).collect();
    for (index, path) in files.iter().enumerate() {
        check_output(path).map_err(advised)?;
        // Only an existing file can have several names.
        let Ok(place) = path.canonicalize() else {
            if files[..index].iter().any(|other| new_place(other) == new_place(path)) {
                bail!(
                    "{}: is given for two outputs; give a different file for each",
                    path.display()
                );
            }
            continue;
        };
        let is_there = |other: &&Path| other.canonicalize().is_ok_and(|other| other == place);
        if files[..index].iter().any(is_there) {
            bail!("{}: is given for two outputs; give a different file for each", path.display());
        }
        if inputs.iter().any(|input| reads(input, &place)) {
            bail!("{}: is also an input; give the output another name", path.display());
        }
    }
    Ok(())
}

/// Returns whether an input is this file, or a folder with this file among its samples.
fn reads(input: &Path, file: &Path) -> bool {
    let is_file = |path: &Path| path.canonicalize().is_ok_and(|path| path == file);
    match input.is_dir() {
        true => samples::files(input).is_ok_and(|files| files.iter().any(|path| is_file(path))),
        false => is_file(input),
    }
}

/// Returns the folder of a file that does not exist yet, and its name.
fn new_place(path: &Path) -> (PathBuf, Option<&OsStr>) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    (folder.canonicalize().unwrap_or_else(|_| folder.into()), path.file_name())
}

/// Adds the alternative `-` to the error for a device.
fn advised(error: WriteError) -> anyhow::Error {
    match error {
        WriteError::NotAFile { .. } => anyhow!("{error}, or - for standard output"),
        error => error.into(),
    }
}

/// An output that appears only when it is complete.
pub enum Output {
    /// A file.
    File(Box<AtomicFile>),
    /// Standard output. A temporary file holds the bytes until they are complete.
    Stdout(File),
}

impl Output {
    /// Creates an empty output.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn new(path: &Path) -> anyhow::Result<Output> {
        if !is_stdout(path) {
            return Ok(Output::File(AtomicFile::new(path).map_err(advised)?.into()));
        }
        let file = tempfile::tempfile().context("cannot create a temporary file")?;
        Ok(Output::Stdout(file))
    }

    /// Returns the free disk space in bytes where the output goes, if it is known.
    pub fn room(&self) -> Option<u64> {
        match self {
            Output::File(file) => file.room(),
            Output::Stdout(_) => None,
        }
    }

    /// Completes the output: renames the file into place, or copies the bytes to standard output.
    ///
    /// # Errors
    /// When that fails, or when standard output is a terminal.
    pub fn put(self) -> anyhow::Result<()> {
        let mut file = match self {
            Output::File(file) => return Ok(file.put()?),
            Output::Stdout(file) => file,
        };
        if io::stdout().is_terminal() {
            bail!("refusing to write binary data to a terminal; give the name of a file");
        }
        file.seek(SeekFrom::Start(0))?;
        let mut piece = vec![0; 1 << 16];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(()),
                count => write_out(&[&piece[..count]]),
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::File(file) => file.write(bytes),
            Output::Stdout(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::File(file) => file.flush(),
            Output::Stdout(file) => file.flush(),
        }
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Output::File(file) => file.seek(to),
            Output::Stdout(file) => file.seek(to),
        }
    }
}

/// Writes binary data to an output.
///
/// # Errors
/// When that fails. An existing file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = Output::new(path)?;
    output.write_all(bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    output.put()
}

/// Writes text to an output. Standard output may be a terminal.
///
/// # Errors
/// As [`write`].
pub fn write_text(path: &Path, text: &str) -> anyhow::Result<()> {
    match is_stdout(path) {
        true => write_out(&[text.as_bytes()]),
        false => write(path, text.as_bytes())?,
    }
    Ok(())
}

/// Prints the summary of a command: to stderr if one of its outputs is standard output.
pub fn summary(outputs: &[&Path], text: &str) {
    match outputs.iter().any(|path| is_stdout(path)) {
        true => say_lines(text),
        false => print(text),
    }
}
