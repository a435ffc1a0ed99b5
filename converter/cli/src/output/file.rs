//! Where the outputs of a command go: into files, or to standard output for the name `-`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use hardtack_converter::{WholeFile, WriteError, check_output};

use super::{print, say_lines, write_out};

/// Whether an output goes to standard output.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks the outputs of a command before it begins: that each can be a file, that no two are the
/// same, and that none of them is an input.
///
/// # Errors
/// Where one is not so; nothing was touched.
pub fn check(outputs: &[&Path], inputs: &[&Path], as_json: bool) -> anyhow::Result<()> {
    let to_stdout = outputs.iter().filter(|path| is_stdout(path)).count();
    if to_stdout > 1 {
        bail!("only one output can go to standard output; give the others the names of files");
    }
    if to_stdout > 0 && as_json {
        bail!("--json prints on standard output; give the output the name of a file, not -");
    }
    let files: Vec<&Path> = outputs.iter().copied().filter(|path| !is_stdout(path)).collect();
    for (index, path) in files.iter().enumerate() {
        check_output(path).map_err(advised)?;
        // Only what exists can be the same file under another name.
        let Ok(place) = path.canonicalize() else {
            if files[..index].contains(path) {
                bail!("{}: is given for two outputs; give two names", path.display());
            }
            continue;
        };
        let is_there = |other: &&Path| other.canonicalize().is_ok_and(|other| other == place);
        if files[..index].iter().any(is_there) {
            bail!("{}: is given for two outputs; give two names", path.display());
        }
        if inputs.iter().any(is_there) {
            bail!("{}: is an input of this command; give the output another name", path.display());
        }
    }
    Ok(())
}

/// Says what else there is, where a device was given.
fn advised(error: WriteError) -> anyhow::Error {
    match error {
        WriteError::NotAFile { .. } => anyhow!("{error}, or - for standard output"),
        error => error.into(),
    }
}

/// An output that is whole, or is not there.
pub enum Output {
    /// A file.
    File(Box<WholeFile>),
    /// Standard output, to which everything goes when it is whole.
    Stdout(File),
}

impl Output {
    /// Begins an output.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn new(path: &Path) -> anyhow::Result<Output> {
        if !is_stdout(path) {
            return Ok(Output::File(WholeFile::new(path).map_err(advised)?.into()));
        }
        let file = tempfile::tempfile().context("no temporary file can be made")?;
        Ok(Output::Stdout(file))
    }

    /// The bytes that are free where it goes, if the system tells.
    pub fn room(&self) -> Option<u64> {
        match self {
            Output::File(file) => file.room(),
            Output::Stdout(_) => None,
        }
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// Where that fails, and where it would go to a terminal.
    pub fn put(self) -> anyhow::Result<()> {
        let mut file = match self {
            Output::File(file) => return Ok(file.put()?),
            Output::Stdout(file) => file,
        };
        if io::stdout().is_terminal() {
            bail!("standard output is a terminal, which cannot show this; give the name of a file");
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

/// Writes bytes to an output.
///
/// # Errors
/// Where that fails; then what was there before still is.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = Output::new(path)?;
    output.write_all(bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    output.put()
}

/// Writes text to an output; a terminal may show it.
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

/// Prints the words of a command that has these outputs: to stderr, where stdout is one of them.
pub fn summary(outputs: &[&Path], text: &str) {
    match outputs.iter().any(|path| is_stdout(path)) {
        true => say_lines(text),
        false => print(text),
    }
}
