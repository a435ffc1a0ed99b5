//! Output files that are written atomically.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

/// Maximum length of a chain of symbolic links, as on Linux.
const MAX_LINKS: usize = 40;

/// Why an output was not written. An existing file is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The path is a device, pipe or socket, which must not be replaced.
    #[error("{}: is {kind}, not a file; give the name of a file", path.display())]
    NotAFile {
        /// The output path.
        path: PathBuf,
        /// The kind of the existing entry, for example "a character device".
        kind: &'static str,
    },
    /// The folder of the path does not exist.
    #[error("{}: the folder {} does not exist; create it", path.display(), folder.display())]
    NoFolder {
        /// The output path.
        path: PathBuf,
        /// The missing folder.
        folder: PathBuf,
    },
    /// An I/O error.
    #[error("{}: cannot be written: {source}; an existing file is unchanged", path.display())]
    Write {
        /// The output path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// An output file that is replaced atomically. The bytes go to a temporary file in the same folder,
/// and [`put`](AtomicFile::put) renames it into place. If the value is dropped before, the
/// temporary file is removed and an existing file is unchanged.
///
/// On Linux, the temporary file has no name (`O_TMPFILE`) if the file system supports that, so
/// nothing is left behind even if the process is killed.
///
/// If the path is a symbolic link, the link stays and its target is replaced. An existing file
/// keeps its permissions; a new file gets 0666 minus the umask. Other kinds of files are rejected.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// use hardtack_converter::AtomicFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// std::fs::write("report.json", "old")?;
/// let mut file = AtomicFile::new("report.json".as_ref())?;
/// file.write_all(b"new")?;
/// assert_eq!(std::fs::read_to_string("report.json")?, "old");
/// file.put()?;
/// assert_eq!(std::fs::read_to_string("report.json")?, "new");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<File>,
    /// The temporary name, if the file has one.
    name: Option<TempPath>,
    place: Place,
}

/// The destination of an output.
#[derive(Debug)]
struct Place {
    /// The path as the user gave it, for error messages.
    path: PathBuf,
    /// The path with all symbolic links resolved.
    target: PathBuf,
    /// The existing file, if there is one.
    replaced: Option<Metadata>,
}

impl Place {
    /// Resolves the destination of an output and checks that it is a regular file or does not
    /// exist.
    ///
    /// The type is checked again at the resolved path, which only users with write access to its
    /// folders can change. If something else appears there before the rename, the rename replaces
    /// the directory entry: it neither follows a link nor writes to a device.
    fn of(path: &Path) -> Result<Place, WriteError> {
        let failed = |source| WriteError::Write { path: path.into(), source };
        // This also finds pipes that `/proc` has no path for.
        regular(path, fs::metadata(path))?;
        let end = end_of_links(path).map_err(failed)?;
        let name = match end.file_name() {
            Some(name) if !ends_with_separator(&end) => name,
            _ => return Err(failed(io::ErrorKind::IsADirectory.into())),
        };
        let folder = folder(&end);
        let found = fs::canonicalize(folder).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                WriteError::NoFolder { path: path.into(), folder: folder.into() }
            }
            _ => failed(source),
        })?;
        let target = found.join(name);
        let replaced = regular(path, fs::symlink_metadata(&target))?;
        Ok(Place { path: path.into(), target, replaced })
    }
}

/// Returns the metadata if they are those of a regular file, and `None` if nothing was found.
fn regular(path: &Path, found: io::Result<Metadata>) -> Result<Option<Metadata>, WriteError> {
    let failed = |source| WriteError::Write { path: path.into(), source };
    match found {
        Ok(there) if there.is_file() => Ok(Some(there)),
        Ok(there) if there.is_dir() => Err(failed(io::ErrorKind::IsADirectory.into())),
        Ok(there) => Err(WriteError::NotAFile { path: path.into(), kind: kind(&there) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn ends_with_separator(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().last();
    last.is_some_and(|byte| std::path::is_separator(char::from(*byte)))
}

/// Names the type of something that is neither a file nor a folder.
fn kind(there: &Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        match there.file_type() {
            kind if kind.is_char_device() => return "a character device",
            kind if kind.is_block_device() => return "a block device",
            kind if kind.is_fifo() => return "a pipe",
            kind if kind.is_socket() => return "a socket",
            kind if kind.is_symlink() => return "a symbolic link",
            _ => {}
        }
    }
    let _ = there;
    "a device"
}

/// Follows symbolic links in the last component of a path. The target need not exist.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&path) else { return Ok(path) };
        if !is_trusted(&path)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is a symbolic link of another user in a world-writable folder",
            ));
        }
        path = folder(&path).join(link);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Returns whether a symbolic link may be followed. In a sticky world-writable folder such as
/// `/tmp`, only links of this user or of the folder's owner are. This is the rule of
/// `fs.protected_symlinks` in Linux, which may be off.
#[cfg(target_os = "linux")]
fn is_trusted(link: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    const STICKY_WORLD_WRITABLE: u32 = 0o1002;
    let parent = fs::metadata(folder(link))?;
    if parent.mode() & STICKY_WORLD_WRITABLE != STICKY_WORLD_WRITABLE {
        return Ok(true);
    }
    let owner = fs::symlink_metadata(link)?.uid();
    Ok(owner == parent.uid() || fs::metadata("/proc/self").is_ok_and(|own| own.uid() == owner))
}

#[cfg(not(target_os = "linux"))]
fn is_trusted(_: &Path) -> io::Result<bool> {
    Ok(true)
}

impl AtomicFile {
    /// Creates an empty output for `path`.
    ///
    /// # Errors
    /// [`WriteError::NotAFile`] if the path is a device, pipe or socket; [`WriteError::NoFolder`]
    /// if its parent folder does not exist; [`WriteError::Write`] if it is a folder, or if its
    /// parent folder is not writable.
    pub fn new(path: &Path) -> Result<Self, WriteError> {
        let place = Place::of(path)?;
        let folder = folder(&place.target);
        let mode = mode(&place);
        let begun = match unnamed(folder, mode) {
            Some(file) => Ok((file, None)),
            None => temporary(mode).tempfile_in(folder).map(|file| {
                let (file, name) = file.into_parts();
                (file, Some(name))
            }),
        };
        let (file, name) =
            begun.map_err(|source| WriteError::Write { path: path.into(), source })?;
        Ok(Self { file: BufWriter::new(file), name, place })
    }

    /// Returns the free disk space in bytes for this user, if the system reports it.
    pub fn room(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            let found = rustix::fs::fstatvfs(self.file.get_ref()).ok()?;
            found.f_bavail.checked_mul(found.f_frsize)
        }
        #[cfg(not(unix))]
        None
    }

    /// Flushes the file to disk and renames it into place, replacing an existing file.
    ///
    /// # Errors
    /// Returns [`WriteError::Write`] if that fails. An existing file is then unchanged.
    pub fn put(self) -> Result<(), WriteError> {
        let Self { file, name, place } = self;
        put(file, name, &place).map_err(|source| WriteError::Write { path: place.path, source })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

fn put(file: BufWriter<File>, name: Option<TempPath>, place: &Place) -> io::Result<()> {
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    #[cfg(unix)]
    if let Some(replaced) = &place.replaced {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (replaced.uid(), replaced.gid()) {
            // Only root may change the owner. For other users, the new file is theirs.
            let _ = fchown(&file, Some(replaced.uid()), Some(replaced.gid()));
        }
        file.set_permissions(fs::Permissions::from_mode(mode(place)))?;
    }
    file.sync_all()?;
    let name = match name {
        Some(name) => name,
        None => named(&file, place)?,
    };
    name.persist(&place.target).map_err(|error| error.error)?;
    // The rename has succeeded, so a folder that cannot be synced is not an error.
    #[cfg(unix)]
    let _ = File::open(folder(&place.target)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Returns the mode of the new file: that of the file it replaces, or 0666, which the umask
/// reduces.
fn mode(place: &Place) -> u32 {
    const NEW: u32 = 0o666;
    #[cfg(unix)]
    if let Some(replaced) = &place.replaced {
        use std::os::unix::fs::PermissionsExt as _;
        return replaced.permissions().mode() & 0o777;
    }
    let _ = place;
    NEW
}

/// Returns a builder for temporary files with the given mode.
fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(crate::process::worker::unfinished_prefix()).suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    let _ = mode;
    builder
}

/// Creates an unnamed file that can be linked later. `None` if the file system has no `O_TMPFILE`,
/// or if `/proc` is not mounted.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path, mode: u32) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::TMPFILE.bits() as i32;
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(flags).mode(mode).open(folder).ok()?;
    fs::symlink_metadata(descriptor(&file)).is_ok().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path, _: u32) -> Option<File> {
    None
}

/// Links an unnamed file under a temporary name, next to its destination.
#[cfg(target_os = "linux")]
fn named(file: &File, place: &Place) -> io::Result<TempPath> {
    use rustix::fs::{AtFlags, CWD, linkat};
    let link = |name: &Path| {
        let linked = linkat(CWD, descriptor(file), CWD, name, AtFlags::SYMLINK_FOLLOW);
        linked.map_err(io::Error::from)
    };
    let folder = folder(&place.target);
    temporary(mode(place)).make_in(folder, link).map(tempfile::NamedTempFile::into_temp_path)
}

#[cfg(not(target_os = "linux"))]
fn named(_: &File, _: &Place) -> io::Result<TempPath> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns the path of an open file in `/proc`.
#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Checks that `path` can be an output, before the work that produces it.
///
/// # Errors
/// [`WriteError::NotAFile`] if the path is a device, pipe or socket; [`WriteError::NoFolder`] if
/// its parent folder does not exist; [`WriteError::Write`] if it is a folder.
///
/// # Examples
///
/// ```
/// use hardtack_converter::check_output;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// check_output("model.tack".as_ref())?;
/// assert!(check_output("missing/model.tack".as_ref()).is_err());
/// # Ok(())
/// # }
/// ```
pub fn check_output(path: &Path) -> Result<(), WriteError> {
    let place = Place::of(path)?;
    let folder = fs::metadata(folder(&place.target));
    let is_folder = folder.and_then(|folder| match folder.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    is_folder.map_err(|source| WriteError::Write { path: path.into(), source })
}

/// Writes a file atomically, as [`AtomicFile`] does.
///
/// # Errors
/// See [`AtomicFile`]. An existing file is unchanged.
///
/// # Examples
///
/// ```
/// use hardtack_converter::write_file;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// write_file("labels.txt".as_ref(), b"cat\ndog\n")?;
/// assert_eq!(std::fs::read_to_string("labels.txt")?.lines().count(), 2);
/// # Ok(())
/// # }
/// ```
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = AtomicFile::new(path)?;
    file.write_all(bytes).map_err(|source| WriteError::Write { path: path.into(), source })?;
    file.put()
}

#[cfg(test)]
mod tests;
