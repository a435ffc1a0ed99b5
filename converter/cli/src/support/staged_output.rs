//! Staged outputs: files in a temporary folder until the quality gates have passed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::arguments::Convert;

/// A temporary folder for the outputs of a conversion, next to the final path of the bundle.
pub struct StagedOutput {
    folder: tempfile::TempDir,
    packs: bool,
}

impl StagedOutput {
    /// Creates the folder, which is removed with its content on drop. With `packs`, the compressed
    /// bundle is staged even if it is not an output.
    ///
    /// # Errors
    /// If the folder of the bundle cannot be written.
    pub fn new(arguments: &Convert, packs: bool) -> anyhow::Result<StagedOutput> {
        let place = match arguments.output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = tempfile::Builder::new()
            .prefix(hardtack_converter::guard::unfinished_prefix())
            .tempdir_in(place)
            .with_context(|| format!("{}: cannot be written", arguments.output.display()))?;
        Ok(StagedOutput { folder, packs: packs || arguments.transport.is_some() })
    }

    /// Returns the staged path of the bundle.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle.tack")
    }

    /// Returns the staged path of the compressed bundle, if one is needed.
    pub fn transport(&self) -> Option<PathBuf> {
        self.packs.then(|| self.folder.path().join("bundle.tackz"))
    }

    /// Writes the staged files to their final paths.
    ///
    /// # Errors
    /// If a file cannot be read or written.
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
