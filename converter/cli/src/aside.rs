//! What is written beside its place until it is known to be good.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::arguments::Convert;

/// A folder beside a bundle's place, for what is not yet known to be good.
pub struct Aside {
    folder: tempfile::TempDir,
    packs: bool,
}

impl Aside {
    /// A new one, which is gone with its content when it is dropped.
    ///
    /// # Errors
    /// Where the bundle's folder cannot be written.
    pub fn new(arguments: &Convert, packs: bool) -> anyhow::Result<Aside> {
        let place = match arguments.output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = tempfile::Builder::new()
            .prefix(hardtack_converter::guard::unfinished_prefix())
            .tempdir_in(place)
            .with_context(|| format!("{}: cannot be written", arguments.output.display()))?;
        Ok(Aside { folder, packs: packs || arguments.transport.is_some() })
    }

    /// Where the bundle goes at first.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle.tack")
    }

    /// Where its transport form goes at first, if it is wanted.
    pub fn transport(&self) -> Option<PathBuf> {
        self.packs.then(|| self.folder.path().join("bundle.tackz"))
    }

    /// Writes what was asked for to where it was asked to be.
    ///
    /// # Errors
    /// Where that fails.
    pub fn put_in_place(self, arguments: &Convert) -> anyhow::Result<()> {
        let put = |from: PathBuf, to: &Path| {
            let bytes = std::fs::read(from)?;
            hardtack_converter::write_file(to, &bytes).map_err(|error| anyhow!(error))
        };
        if let (Some(from), Some(to)) = (self.transport(), &arguments.transport) {
            put(from, to)?;
        }
        put(self.bundle(), &arguments.output)
    }
}
