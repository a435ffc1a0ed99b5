//! Files that appear whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::Error;

/// A file that is written beside its place, and put there when it is whole. Dropped before, it
/// leaves nothing, and what was there stays.
#[derive(Debug)]
pub struct WholeFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl WholeFile {
    /// An empty one.
    ///
    /// # Errors
    /// Where the folder of `path` cannot be written.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: path.into(), source };
        let file = tempfile::Builder::new()
            .prefix(crate::guard::unfinished_prefix())
            .suffix(".tack.tmp")
            .tempfile_in(folder(path))
            .map_err(failed)?;
        Ok(Self { file: BufWriter::new(file), path: path.into() })
    }

    /// Puts it in its place, over what is there.
    ///
    /// # Errors
    /// Where that fails; then what was there before still is.
    pub fn put(self) -> Result<(), Error> {
        let Self { file, path } = self;
        put(file, &path).map_err(|source| Error::Write { path, source })
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn put(file: BufWriter<NamedTempFile>, path: &Path) -> io::Result<()> {
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    std::fs::File::open(folder(path))?.sync_all()?;
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// Where that fails; then what was there before still is.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = WholeFile::new(path)?;
    file.write_all(bytes).map_err(|source| Error::Write { path: path.into(), source })?;
    file.put()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.tack");
        write_file(&path, b"first").unwrap();
        write_file(&path, b"second").unwrap();
        let mut given_up = WholeFile::new(&path).unwrap();
        given_up.write_all(b"third").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
        // A folder stands where the file should go.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("inside"), b"kept").unwrap();
        let error = write_file(&taken, b"third").unwrap_err().to_string();
        assert!(error.contains("taken: cannot be written"), "{error}");
        assert_eq!(std::fs::read(taken.join("inside")).unwrap(), b"kept");
        let error = write_file(&folder.path().join("none/model.tack"), b"x").unwrap_err();
        assert!(matches!(error, Error::Write { .. }));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
