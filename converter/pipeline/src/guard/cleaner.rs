//! A process that removes the files of a supervised process, however that or its supervisor ends.
//!
//! A signal such as Ctrl-C may end both at once, and then neither can clean up. The cleaner is in
//! its own process group, so it does not receive the terminal's signals. It reads from a pipe whose
//! other end the supervisor holds; the system closes that end when the supervisor ends.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::CLEAN;
use crate::process::WATCHED_EVERY;

/// The number of attempts to remove the files, and the pause between attempts: the files may still
/// be in use.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// The byte that the supervisor writes after the supervised process has ended.
const ENDED: u8 = b'.';

/// The files to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// A folder to remove with its content.
    pub folder: PathBuf,
    /// The name prefix of the files and folders to remove from `places`.
    pub mark: String,
    /// The folders to search for names that start with `mark`.
    pub places: Vec<PathBuf>,
}

impl Leftovers {
    /// Removes the files. Missing files are not an error.
    fn remove(&self) {
        for _ in 0..TRIES {
            if self.try_remove().is_ok() {
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        for place in &self.places {
            for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&self.mark) {
                    remove(&entry.path())?;
                }
            }
        }
        remove(&self.folder)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A handle to a cleaner process.
pub(super) struct Cleaner {
    process: Child,
}

impl Cleaner {
    /// Starts a cleaner process.
    pub(super) fn start(leftovers: &Leftovers) -> io::Result<Cleaner> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CLEAN).arg(&leftovers.folder).arg(&leftovers.mark).args(&leftovers.places);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Cleaner { process: command.spawn()? })
    }

    /// Makes the cleaner remove the files and waits for it. The supervised process must have ended.
    pub(super) fn finish(mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            let _ = pipe.write_all(&[ENDED]);
        }
        let _ = self.process.wait();
    }
}

/// Runs the cleaner process: waits for the supervisor, then removes the files. Returns `None` if
/// the arguments are not valid.
pub(super) fn serve(mut arguments: impl Iterator<Item = OsString>) -> Option<()> {
    let folder = arguments.next()?.into();
    let mark = arguments.next()?.into_string().ok().filter(|mark| !mark.is_empty())?;
    let leftovers = Leftovers { folder, mark, places: arguments.map(PathBuf::from).collect() };
    let mut words = Vec::new();
    let _ = io::stdin().read_to_end(&mut words);
    if words != [ENDED] {
        // The supervisor was killed. Wait until the supervised process notices and ends.
        thread::sleep(2 * WATCHED_EVERY);
    }
    leftovers.remove();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_the_mark_are_removed() {
        let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/imported"), "x").unwrap();
        std::fs::create_dir(place.path().join(".hardtack-1-folder")).unwrap();
        for name in [".hardtack-1-a.tack.tmp", ".hardtack-2-a.tack.tmp", "model.tack"] {
            std::fs::write(place.path().join(name), "x").unwrap();
        }
        let leftovers = Leftovers {
            folder: folder.path().into(),
            mark: ".hardtack-1-".into(),
            places: vec![place.path().into(), place.path().join("none")],
        };
        leftovers.remove();
        assert!(!folder.path().exists());
        let names =
            std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, [".hardtack-2-a.tack.tmp", "model.tack"]);
        leftovers.remove();
    }
}
