//! An open bundle, mapped or in memory, whose sections are verified when they are first read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hardtack_bundle::graph::Graph;
use hardtack_bundle::process::{Postprocess, Preprocess};
use hardtack_bundle::{Digest, Family, Golden, Labels, Manifest, Readings, Section, SectionKind};

use hardtack_kernels::packed::Packing;

use crate::model::Program;
use crate::{Bytes, Error, Ports, Tensor, map};

/// An open bundle. Clones are cheap and share the bytes, which stay alive as long as a session
/// created from the bundle needs them.
///
/// Opening checks the header and the section table. Each section is compared with its SHA-256
/// digest when it is first read, once for all clones of the bundle. A [`Session`](crate::Session)
/// therefore never runs bytes that the root digest does not cover. [`Bundle::open_unverified`]
/// skips the check of weights and constants.
///
/// # Examples
///
/// ```
/// use hardtack::Bundle;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let manifest = bundle.manifest()?;
/// println!("{} {}", manifest.name, bundle.root());
/// assert_eq!(manifest.inputs[0].name, "mfcc");
/// assert_eq!(manifest.outputs[0].name, "probs");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Bytes,
    root: Digest,
    /// Whether weights and constants are compared with their digests too.
    verifies_all: bool,
    /// For each section, whether it matched its digest.
    verified: Arc<[AtomicBool]>,
}

impl Bundle {
    /// Opens a bundle by mapping its file. The time does not depend on the size of the file.
    ///
    /// The file must not be changed in place while the bundle or a session created from it is in
    /// use. To install another bundle under the same path, write a new file and rename it. If you
    /// cannot rule out changes, use [`Bundle::read`]: truncating a mapped file ends this process
    /// with `SIGBUS` on Unix.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be mapped or is not a bundle.
    pub fn open(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        let path = path.as_ref();
        let map = || map::map(&File::open(path)?);
        let bytes = map().map_err(Error::Read).map(Bytes::mapped);
        bytes.and_then(Bundle::parse).map_err(|error| error.of_file(path))
    }

    /// Opens a bundle like [`Bundle::open`], but does not verify its weights and constants. Use it
    /// for a bundle that was verified at installation and that nobody could change since.
    ///
    /// Sessions do not compare weights and constants with their digests, so loading a model reads
    /// only the parts of the file that it needs. A damaged weight goes unnoticed: the outputs are
    /// wrong without an error. Memory safety does not depend on the check.
    ///
    /// # Errors
    /// See [`Bundle::open`].
    pub fn open_unverified(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        Ok(Bundle { verifies_all: false, ..Bundle::open(path)? })
    }

    /// Reads a bundle file into memory. Takes time and memory in proportion to its size. Later
    /// changes to the file have no effect.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read or is not a bundle.
    ///
    /// # Examples
    ///
    /// Check a bundle that another process may replace:
    ///
    /// ```
    /// use hardtack::Bundle;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let bundle = Bundle::read("kws_dscnn.tack")?;
    /// bundle.verify()?;
    /// assert_eq!(bundle.manifest()?.name, "kws_dscnn");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Result<Bundle, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::Read).map(Bytes::from);
        bytes.and_then(Bundle::parse).map_err(|error| error.of_file(path))
    }

    /// Opens a bundle from the content of its file.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a bundle.
    ///
    /// # Examples
    ///
    /// Run a model that is compiled into the program:
    ///
    /// ```
    /// use hardtack::{Bundle, Session};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # macro_rules! include_bytes {
    /// #     ($name:literal) => {
    /// #         core::include_bytes!(concat!(
    /// #             env!("CARGO_MANIFEST_DIR"),
    /// #             "/../../tests/frozen/programs/",
    /// #             $name
    /// #         ))
    /// #     };
    /// # }
    /// let bundle = Bundle::from_bytes(&include_bytes!("kws_dscnn.tack")[..])?;
    /// let session = Session::new(&bundle)?;
    /// assert_eq!(session.inputs().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Decodes the manifest: the model's name, inputs, outputs and requirements. Each call decodes
    /// it again.
    ///
    /// # Errors
    /// Returns an error if the file was changed since it was opened.
    pub fn manifest(&self) -> Result<Manifest<'_>, Error> {
        Ok(self.container()?.manifest()?)
    }

    /// Returns the root digest, which identifies the bundle.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// Returns the bytes of the whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns all sections, in file order.
    ///
    /// # Errors
    /// Returns an error if the file was changed since it was opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack::Bundle;
    /// use hardtack_bundle::SectionKind;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let bundle = Bundle::open("kws_dscnn.tack")?;
    /// for section in bundle.sections()? {
    ///     println!("{}: {} bytes", section.kind, section.bytes.len());
    /// }
    /// assert_eq!(bundle.sections()?.next().unwrap().kind, SectionKind::Manifest);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sections(&self) -> Result<impl Iterator<Item = Section<'_>>, Error> {
        Ok(self.container()?.sections())
    }

    /// Returns the class names, or `None` if the bundle has none.
    ///
    /// # Errors
    /// Returns an error if the section is damaged or malformed.
    pub fn labels(&self) -> Result<Option<Labels<'_>>, Error> {
        Ok(self.checked(SectionKind::Labels)?.labels()?)
    }

    /// Returns the pre-processing of the model's first input, or `None` if the bundle describes
    /// none.
    ///
    /// # Errors
    /// Returns an error if the section is damaged or malformed.
    pub fn preprocess(&self) -> Result<Option<Preprocess>, Error> {
        Ok(self.checked(SectionKind::Preprocess)?.preprocess()?)
    }

    /// Returns the post-processing of the model's first output, or `None` if the bundle describes
    /// none.
    ///
    /// # Errors
    /// Returns an error if the section is damaged or malformed.
    pub fn postprocess(&self) -> Result<Option<Postprocess>, Error> {
        Ok(self.checked(SectionKind::Postprocess)?.postprocess()?)
    }

    /// Returns the inputs, outputs and states of the model, with the default values of inputs.
    ///
    /// # Errors
    /// Returns an error if the default values are damaged or malformed, or if the file was changed
    /// since it was opened.
    pub fn ports(&self) -> Result<Ports, Error> {
        let container = self.checked(SectionKind::Defaults)?;
        let mut ports = Ports::of(&container.manifest()?);
        for default in &container.defaults()? {
            let port = &mut ports.inputs[usize::from(default.input)];
            let size = |size: &u64| usize::try_from(*size).ok();
            let shape = default.shape.iter().map(size).collect::<Option<Vec<usize>>>();
            let value = shape.and_then(|s| Tensor::from_bytes(port.dtype, &s, default.elements));
            let problem = || format!("the default value of input {port} is too large");
            let value = value.ok_or_else(|| Error::Manifest { problem: problem() })?;
            port.default = Some(value);
        }
        Ok(ports)
    }

    /// Returns how the two readings of the source model agreed, or `None` if the bundle does not
    /// say so.
    ///
    /// # Errors
    /// Returns an error if the section is damaged or malformed.
    pub fn readings(&self) -> Result<Option<Readings<'_>>, Error> {
        Ok(self.checked(SectionKind::Readings)?.readings()?)
    }

    /// Returns the test vectors (inputs with their expected outputs), or `None` if the bundle has
    /// none. [`golden::check`](crate::golden::check) runs them.
    ///
    /// # Errors
    /// Returns an error if the section is damaged or malformed.
    pub fn golden(&self) -> Result<Option<Golden<'_>>, Error> {
        Ok(self.checked(SectionKind::Golden)?.golden()?)
    }

    /// Reads the whole file, compares every section with its digest and checks all padding.
    ///
    /// # Errors
    /// Returns the first mismatch, in file order.
    ///
    /// # Examples
    ///
    /// A damaged weight is found:
    ///
    /// ```
    /// use hardtack::Bundle;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let mut bytes = std::fs::read("kws_dscnn.tack")?;
    /// bytes[20_000] ^= 1;
    /// let bundle = Bundle::from_bytes(bytes)?;
    /// println!("{}", bundle.verify().unwrap_err());
    /// assert!(bundle.verify().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(&self) -> Result<(), Error> {
        self.container()?.verify()?;
        self.verified.iter().for_each(|section| section.store(true, Ordering::Relaxed));
        Ok(())
    }

    /// Returns the parsed container, which gives access to everything else in the bundle. Each call
    /// parses the header and the section table.
    ///
    /// # Errors
    /// Returns an error if the file was changed since it was opened.
    pub fn container(&self) -> Result<hardtack_bundle::Bundle<'_>, Error> {
        Ok(hardtack_bundle::Bundle::parse(&self.bytes)?)
    }

    /// Returns the container after comparing the section of this kind with its digest.
    fn checked(&self, kind: SectionKind) -> Result<hardtack_bundle::Bundle<'_>, Error> {
        let container = self.container()?;
        self.check(&container, kind)?;
        Ok(container)
    }

    /// Compares a section with its digest, unless an earlier call did.
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

    /// Returns the graph.
    pub(crate) fn graph(&self) -> Result<Graph, Error> {
        self.checked(SectionKind::Graph)?.graph()?.ok_or(Error::NoGraph)
    }

    /// Returns the bytes of all constants.
    pub(crate) fn constants(&self) -> Result<Bytes, Error> {
        let container = self.checked(SectionKind::Constants)?;
        let section = container.section(SectionKind::Constants);
        let bytes = section.map(|section| {
            let start = section.offset as usize;
            self.bytes.slice(start..start + section.bytes.len())
        });
        Ok(bytes.flatten().unwrap_or_default())
    }

    /// Returns all integer programs. Each has weights in the `wanted` layout if the bundle has
    /// them, and otherwise in another layout that this release knows.
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

/// Returns the kernel family that uses this weight layout; `None` is the layout of `mcu`.
///
/// # Examples
///
/// ```
/// use hardtack::Isa;
/// use hardtack::internal::{Packing, family_of, packing_of};
///
/// let family = family_of(Isa::Avx2.packing());
/// assert_eq!(family.name(), "x86-ymm");
/// assert_eq!(packing_of(family), Some(Some(Packing::X86Ymm)));
/// ```
pub fn family_of(packing: Option<Packing>) -> Family {
    match packing {
        Some(Packing::X86Zmm) => Family::X86Zmm,
        Some(Packing::X86Ymm) => Family::X86Ymm,
        Some(Packing::NeonDot) => Family::NeonDot,
        None => Family::Mcu,
    }
}

/// Returns the weight layout of a kernel family, where `Some(None)` is the layout of `mcu`. Returns
/// `None` if this release does not know the layout.
pub fn packing_of(family: Family) -> Option<Option<Packing>> {
    let known = Packing::ALL.iter().copied().map(Some).chain([None]);
    known.into_iter().find(|packing| family_of(*packing) == family)
}
