//! A bundle on this machine: mapped or in memory, its sections verified when they are first read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hardtack_bundle::graph::Graph;
use hardtack_bundle::process::{Postprocess, Preprocess};
use hardtack_bundle::{Digest, Family, Golden, Labels, Manifest, Section, SectionKind};

use hardtack_kernels::packed::Packing;

use crate::{Bytes, Error, Program, map};

/// An open bundle. Cheap to clone; the sessions made from it keep what they need of it alive.
///
/// Opening checks the header and the section table. Each section is compared with its SHA-256 digest
/// when it is first read, once for all clones of the bundle, so that a [`Session`](crate::Session)
/// never runs bytes that the root digest does not name. [`Bundle::open_unverified`] leaves out the
/// comparison of weights and constants.
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Bytes,
    root: Digest,
    /// Whether weights and constants are compared with their digests.
    verifies_all: bool,
    /// For each section, whether its digest was found to hold.
    verified: Arc<[AtomicBool]>,
}

impl Bundle {
    /// Opens a bundle by mapping its file. Takes the same time for every size.
    ///
    /// While the bundle or a session made from it is in use, nobody may change the file in place.
    /// To install another bundle under the same path, write a new file and rename it. Where that is
    /// not certain, use [`Bundle::read`]: truncating a mapped file ends this process with `SIGBUS`
    /// on Unix.
    ///
    /// # Errors
    /// Where the file cannot be mapped or is not a bundle; the error names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        let path = path.as_ref();
        let map = || map::map(&File::open(path)?);
        let bytes = map().map_err(Error::Read).map(Bytes::mapped);
        bytes.and_then(Bundle::parse).map_err(|error| error.of_file(path))
    }

    /// [`Bundle::open`] for a bundle that was verified when it was installed and that nobody could
    /// change since.
    ///
    /// Sessions do not compare weights and constants with their digests, so that loading a model
    /// reads no more of the file than it needs. A damaged weight then goes unnoticed: the outputs
    /// are wrong without an error. Memory stays safe either way.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open_unverified(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        Ok(Bundle { verifies_all: false, ..Bundle::open(path)? })
    }

    /// Reads a file into memory. Takes time and memory in proportion to its size; what happens to
    /// the file afterwards does not matter.
    ///
    /// # Errors
    /// Where the file cannot be read or is not a bundle; the error names the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::Read).map(Bytes::from);
        bytes.and_then(Bundle::parse).map_err(|error| error.of_file(path))
    }

    /// Takes the content of a bundle file.
    ///
    /// # Errors
    /// Where it is not a bundle.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Bundle, Error> {
        Bundle::parse(Bytes::from(bytes.into()))
    }

    fn parse(bytes: Bytes) -> Result<Bundle, Error> {
        let container = hardtack_bundle::Bundle::parse(&bytes)?;
        let root = container.root();
        let verified = container.sections().map(|_| AtomicBool::new(false)).collect();
        let bundle = Bundle { bytes, root, verifies_all: true, verified };
        bundle.checked(SectionKind::Manifest)?.manifest()?;
        Ok(bundle)
    }

    /// What the bundle is and what it needs. Decoded at each call.
    ///
    /// # Errors
    /// Where the file was changed since it was opened.
    pub fn manifest(&self) -> Result<Manifest<'_>, Error> {
        Ok(self.container()?.manifest()?)
    }

    /// The digest that names the bundle.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All sections, in the order of the file.
    ///
    /// # Errors
    /// Where the file was changed since it was opened.
    pub fn sections(&self) -> Result<impl Iterator<Item = Section<'_>>, Error> {
        Ok(self.container()?.sections())
    }

    /// Names of the classes, where the bundle has them.
    ///
    /// # Errors
    /// Where the section is damaged or malformed.
    pub fn labels(&self) -> Result<Option<Labels<'_>>, Error> {
        Ok(self.checked(SectionKind::Labels)?.labels()?)
    }

    /// How the model's first input is made, where the bundle says so.
    ///
    /// # Errors
    /// Where the section is damaged or malformed.
    pub fn preprocess(&self) -> Result<Option<Preprocess>, Error> {
        Ok(self.checked(SectionKind::Preprocess)?.preprocess()?)
    }

    /// What becomes of the model's first output, where the bundle says so.
    ///
    /// # Errors
    /// Where the section is damaged or malformed.
    pub fn postprocess(&self) -> Result<Option<Postprocess>, Error> {
        Ok(self.checked(SectionKind::Postprocess)?.postprocess()?)
    }

    /// Inputs with the outputs they must give, where the bundle has them.
    /// [`golden::check`](crate::golden::check) runs them.
    ///
    /// # Errors
    /// Where the section is damaged or malformed.
    pub fn golden(&self) -> Result<Option<Golden<'_>>, Error> {
        Ok(self.checked(SectionKind::Golden)?.golden()?)
    }

    /// Reads the whole file and compares every digest and all padding.
    ///
    /// # Errors
    /// The first damage, in the order of the file.
    pub fn verify(&self) -> Result<(), Error> {
        self.container()?.verify()?;
        self.verified.iter().for_each(|section| section.store(true, Ordering::Relaxed));
        Ok(())
    }

    /// The bundle as its format has it, for everything else that is in it. Costs the reading of
    /// header and section table.
    ///
    /// # Errors
    /// Where the file was changed since it was opened.
    pub fn container(&self) -> Result<hardtack_bundle::Bundle<'_>, Error> {
        Ok(hardtack_bundle::Bundle::parse(&self.bytes)?)
    }

    /// The bundle as its format has it, with a section of this kind compared with its digest.
    fn checked(&self, kind: SectionKind) -> Result<hardtack_bundle::Bundle<'_>, Error> {
        let container = self.container()?;
        self.check(&container, kind)?;
        Ok(container)
    }

    /// Compares a section with its digest, unless that was done before.
    fn check(
        &self,
        container: &hardtack_bundle::Bundle<'_>,
        kind: SectionKind,
    ) -> Result<(), Error> {
        let large = matches!(kind, SectionKind::Constants | SectionKind::Weights { .. });
        if large && !self.verifies_all {
            return Ok(());
        }
        let found = container.sections().zip(&*self.verified).find(|(one, _)| one.kind == kind);
        if let Some((section, verified)) = found
            && !verified.load(Ordering::Relaxed)
        {
            section.verify()?;
            verified.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The graph.
    pub(crate) fn graph(&self) -> Result<Graph, Error> {
        self.checked(SectionKind::Graph)?.graph()?.ok_or(Error::NoGraph)
    }

    /// The bytes of all constants.
    pub(crate) fn constants(&self) -> Result<Bytes, Error> {
        let container = self.checked(SectionKind::Constants)?;
        let section = container.section(SectionKind::Constants);
        let bytes = section.map(|section| {
            let start = section.offset as usize;
            self.bytes.slice(start..start + section.bytes.len())
        });
        Ok(bytes.flatten().unwrap_or_default())
    }

    /// All integer programs, each with weights in this layout if the bundle has them, or else in
    /// any.
    pub(crate) fn programs(&self, wanted: Option<Packing>) -> Result<Vec<Program>, Error> {
        let container = self.container()?;
        let part = |section: Section<'_>| {
            let start = section.offset as usize;
            self.bytes.slice(start..start + section.bytes.len()).unwrap_or_default()
        };
        let program = |index: u16| {
            let kind = SectionKind::Program(index);
            self.check(&container, kind)?;
            let code = container.section(kind).map(part).unwrap_or_default();
            let has = |family: Family| container.families(index).any(|other| other == family);
            let mut family = family_of(wanted);
            if !has(family) {
                let first = container.families(index).find(|family| packing_of(*family).is_some());
                family = if has(Family::Mcu) { Family::Mcu } else { first.unwrap_or(family) };
            }
            let kind = SectionKind::Weights { family, program: index };
            self.check(&container, kind)?;
            let weights = match container.section(kind) {
                Some(section) => part(section),
                None if container.families(index).next().is_none() => Bytes::default(),
                None => {
                    let found = container.families(index).map(|family| family.name());
                    let found = found.collect::<Vec<_>>().join(", ");
                    return Err(Error::Family { program: index, found });
                }
            };
            let packing = packing_of(family).flatten();
            Ok(Program { code, weights, packing })
        };
        (0..container.programs()).map(program).collect()
    }
}

/// The family whose weights have this layout.
pub fn family_of(packing: Option<Packing>) -> Family {
    match packing {
        Some(Packing::X86Zmm) => Family::X86Zmm,
        Some(Packing::X86Ymm) => Family::X86Ymm,
        Some(Packing::NeonDot) => Family::NeonDot,
        _ => Family::Mcu,
    }
}

/// The layout of a family's weights; the outer `None` where this release does not know it.
pub fn packing_of(family: Family) -> Option<Option<Packing>> {
    let known = Packing::ALL.iter().copied().map(Some).chain([None]);
    known.into_iter().find(|packing| family_of(*packing) == family)
}
