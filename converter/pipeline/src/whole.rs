//! Output files that appear whole or not at all.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

/// Most symbolic links that are followed from one to the next.
const LINKS: usize = 40;

/// Why an output cannot be written. What was there before is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Something stands there that is not a file, and that a file must not replace.
    #[error("{}: is {kind}, not a file; give the name of a file", path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
        /// What it is: "a character device", say.
        kind: &'static str,
    },
    /// The system refuses to write it.
    #[error("{}: cannot be written: {source}; what was there before is unchanged", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An output file. It is written under no name, or under a temporary one, and takes its place when
/// [`put`](WholeFile::put) is called. Dropped before that, it leaves nothing behind, and what was in
/// its place stays.
///
/// On Linux, where the file system allows it, the file has no name at all until it is whole, so
/// nothing is left behind either when the process is killed.
///
/// A symbolic link in its place stays, and the file that it leads to is replaced. A file that is
/// replaced gives its permissions to the new one; a new file has those that the process's mask
/// leaves. Devices, pipes and sockets are refused.
#[derive(Debug)]
pub struct WholeFile {
    file: BufWriter<File>,
    /// The name until it is whole, if it has one.
    name: Option<TempPath>,
    place: Place,
}

/// Where an output goes.
#[derive(Debug)]
struct Place {
    /// As the user named it.
    path: PathBuf,
    /// The file itself, behind all symbolic links.
    target: PathBuf,
    /// The file that is there now.
    replaced: Option<Metadata>,
}

impl Place {
    /// Looks at what stands there. What changes there before the file is put is replaced and never
    /// written through: a rename follows no link in the last place of its path, and opens nothing.
    fn of(path: &Path) -> Result<Place, WriteError> {
        let failed = |source| WriteError::Write { path: path.into(), source };
        let (target, replaced) = match fs::metadata(path) {
            Ok(there) if there.is_file() => {
                let target = end_of_links(path).and_then(fs::canonicalize);
                (target.map_err(failed)?, Some(there))
            }
            Ok(there) if there.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(there) => {
                return Err(WriteError::NotAFile { path: path.into(), kind: kind(&there) });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (end_of_links(path).map_err(failed)?, None)
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Place { path: path.into(), target, replaced })
    }
}

/// What something is that is neither a file nor a folder.
fn kind(there: &Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        match there.file_type() {
            kind if kind.is_char_device() => return "a character device",
            kind if kind.is_block_device() => return "a block device",
            kind if kind.is_fifo() => return "a pipe",
            kind if kind.is_socket() => return "a socket",
            _ => {}
        }
    }
    let _ = there;
    "a device"
}

/// The path that a chain of symbolic links ends with.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(link) = fs::read_link(&path) else { return Ok(path) };
        if !is_trusted(&path)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is a symbolic link that another user put into a folder for all users",
            ));
        }
        path = folder(&path).join(link);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Whether a symbolic link is followed: in a folder that all users write to, such as `/tmp`, only
/// one of this user or of the folder's owner. Linux does the same where its setting
/// `fs.protected_symlinks` is on, but only where it follows the link itself.
#[cfg(target_os = "linux")]
fn is_trusted(link: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    const STICKY_FOR_ALL: u32 = 0o1002;
    let shelf = fs::metadata(folder(link))?;
    if shelf.mode() & STICKY_FOR_ALL != STICKY_FOR_ALL {
        return Ok(true);
    }
    let owner = fs::symlink_metadata(link)?.uid();
    // This process belongs to who runs it.
    Ok(owner == shelf.uid() || fs::metadata("/proc/self").is_ok_and(|own| own.uid() == owner))
}

#[cfg(not(target_os = "linux"))]
fn is_trusted(_: &Path) -> io::Result<bool> {
    Ok(true)
}

impl WholeFile {
    /// Begins an empty file that will stand at `path`.
    ///
    /// # Errors
    /// [`WriteError::NotAFile`] where a device, a pipe or a socket stands there, and
    /// [`WriteError::Write`] where a folder does, or where its folder cannot be written.
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

    /// The bytes that are free for this user where the file goes, if the system tells.
    pub fn room(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            let found = rustix::fs::fstatvfs(self.file.get_ref()).ok()?;
            found.f_bavail.checked_mul(found.f_frsize)
        }
        #[cfg(not(unix))]
        None
    }

    /// Puts the file in its place, over the file that is there.
    ///
    /// # Errors
    /// Where that fails; then what was there before still is.
    pub fn put(self) -> Result<(), WriteError> {
        let Self { file, name, place } = self;
        put(file, name, &place).map_err(|source| WriteError::Write { path: place.path, source })
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

impl Seek for WholeFile {
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
            // Only root may give files away; for others the file becomes theirs, as with any copy.
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
    // The file is in its place already, so a system that cannot do this is no error.
    #[cfg(unix)]
    let _ = File::open(folder(&place.target)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The permissions of the file: those of the one it replaces, or what the mask leaves of all.
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

/// What makes files with temporary names.
fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".hardtack-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    let _ = mode;
    builder
}

/// A file without a name in a folder, which can be given one: on Linux, where the file system has
/// such files and `/proc` is there.
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

/// Gives a file without a name a temporary one, beside its place.
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

/// Where the system shows an open file.
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

/// Whether an output can be written at `path`: to be asked before the work that makes it.
///
/// # Errors
/// [`WriteError::NotAFile`] where a device, a pipe or a socket stands there, and
/// [`WriteError::Write`] where a folder does, or where its folder is missing.
pub fn check_output(path: &Path) -> Result<(), WriteError> {
    let place = Place::of(path)?;
    let folder = fs::metadata(folder(&place.target));
    let is_folder = folder.and_then(|folder| match folder.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    is_folder.map_err(|source| WriteError::Write { path: path.into(), source })
}

/// Writes a file whole or not at all.
///
/// # Errors
/// As [`WholeFile`]; then what was there before still is.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = WholeFile::new(path)?;
    file.write_all(bytes).map_err(|source| WriteError::Write { path: path.into(), source })?;
    file.put()
}

#[cfg(test)]
mod tests;
