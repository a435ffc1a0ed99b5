//! Resolves paths that an untrusted file names, inside that file's folder only.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Why a path was rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Outside {
    /// The path leads outside the folder.
    #[error("is not in the folder of the file that names it")]
    Elsewhere,
    /// The path cannot be resolved.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Resolves `name` relative to `folder`, following symbolic links.
///
/// # Errors
/// [`Outside::Elsewhere`] if the name is absolute, contains `..`, or follows a link out of the
/// folder; [`Outside::Unreadable`] if it does not exist.
pub(crate) fn resolve(folder: &Path, name: &Path) -> Result<PathBuf, Outside> {
    if name.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Outside::Elsewhere);
    }
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let folder = folder.canonicalize()?;
    let path = folder.join(name).canonicalize()?;
    if path.starts_with(&folder) { Ok(path) } else { Err(Outside::Elsewhere) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_outside_the_folder_are_rejected() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("inner");
        std::fs::create_dir_all(folder.join("below")).unwrap();
        for name in ["secret", "inner/own", "inner/below/deep"] {
            std::fs::write(outer.path().join(name), b"").unwrap();
        }
        let find = |name: &str| resolve(&folder, Path::new(name));
        for name in ["own", "./own", "below/deep", "below/./deep"] {
            assert!(find(name).unwrap().is_file(), "{name}");
        }
        let mut outside =
            vec!["../secret", "/etc/passwd", "below/../../secret", "below/../own", "/"];
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink("../secret", folder.join("link")).unwrap();
            symlink("..", folder.join("up")).unwrap();
            symlink("own", folder.join("inwards")).unwrap();
            outside.extend(["link", "up/secret"]);
            assert!(find("inwards").is_ok());
        }
        for name in outside {
            assert!(matches!(find(name), Err(Outside::Elsewhere)), "{name}");
        }
        assert!(matches!(find("none"), Err(Outside::Unreadable(_))));
    }
}
