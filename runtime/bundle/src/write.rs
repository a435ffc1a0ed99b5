//! Writes bundles. The same sections give the same bytes on every host.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use serde::Serialize;

use crate::graph::{Graph, GraphError};
use crate::header::Header;
use crate::manifest::Manifest;
use crate::process::{Postprocess, Preprocess};
use crate::table::{Record, RootHasher, first_offset, next_offset};
use crate::{
    ALIGNMENT, Defaults, Digest, Error, FORMAT_VERSION, MAX_SECTIONS, Readings, SLACK, SectionKind,
};

/// The error type for writing bundles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The bundle already has a section of this kind.
    #[error("the bundle already has a section of kind {0}")]
    Duplicate(SectionKind),
    /// A [`SectionKind::Other`] has the numbers of a kind that has its own variant.
    #[error("the numbers of this SectionKind::Other are those of kind {0}; use its own variant")]
    NotOther(SectionKind),
    /// A label contains a line feed.
    #[error("label {index} contains a line feed")]
    Label {
        /// The position of the label.
        index: usize,
    },
    /// A golden vector does not fit the format.
    #[error("the golden vectors do not fit the format: {0}")]
    Golden(&'static str),
    /// A value cannot be encoded.
    #[error("the section {section} cannot be encoded ({problem})")]
    Encode {
        /// The section.
        section: SectionKind,
        /// The encoding error.
        problem: postcard::Error,
    },
    /// The graph is not consistent.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The sections do not form a valid bundle.
    #[error(transparent)]
    Rule(#[from] Error),
}

/// Collects the sections of a bundle, in any order.
///
/// # Examples
///
/// Add labels to an existing bundle:
///
/// ```
/// use hardtack_bundle::{Bundle, Writer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let mut writer = Writer::new();
/// for section in Bundle::parse(&file)?.sections() {
///     writer.section(section.kind, section.bytes)?;
/// }
/// writer.labels(["down", "go", "left"])?;
/// let labeled = writer.finish()?;
///
/// let bundle = Bundle::parse(&labeled)?.verify()?;
/// assert_eq!(bundle.labels()?.unwrap().label(1), Some("go"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer<'a> {
    /// The sections, sorted by key.
    sections: Vec<Part<'a>>,
}

#[derive(Clone, Debug)]
struct Part<'a> {
    kind: SectionKind,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Writer<'a> {
    /// Creates a writer without sections.
    pub fn new() -> Writer<'a> {
        Writer::default()
    }

    /// Adds a section. Borrowed bytes are not copied until the bundle is written.
    ///
    /// # Errors
    /// Returns an error if there is already a section of this kind, or if a
    /// [`SectionKind::Other`] has the numbers of a kind that has its own variant.
    pub fn section(
        &mut self,
        kind: SectionKind,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self, WriteError> {
        let named = SectionKind::from_key(kind.key());
        if named != kind {
            return Err(WriteError::NotOther(named));
        }
        match self.sections.binary_search_by_key(&kind.key(), |part| part.kind.key()) {
            Ok(_) => Err(WriteError::Duplicate(kind)),
            Err(at) => {
                self.sections.insert(at, Part { kind, bytes: bytes.into() });
                Ok(self)
            }
        }
    }

    /// Adds the manifest.
    ///
    /// # Errors
    /// Returns an error if there is already a manifest, or if a state refers to an input or
    /// output that does not exist.
    pub fn manifest(&mut self, manifest: &Manifest<'_>) -> Result<&mut Self, WriteError> {
        manifest.check()?;
        self.postcard(SectionKind::Manifest, manifest)
    }

    /// Adds the graph.
    ///
    /// # Errors
    /// Returns an error if there is already a graph, or if [`Graph::check`] fails.
    pub fn graph(&mut self, graph: &Graph) -> Result<&mut Self, WriteError> {
        graph.check()?;
        self.section(SectionKind::Graph, graph.to_bytes()?)
    }

    /// Adds the class labels.
    ///
    /// # Errors
    /// Returns an error if there are already labels, or if one contains a line feed.
    pub fn labels<'l>(
        &mut self,
        labels: impl IntoIterator<Item = &'l str>,
    ) -> Result<&mut Self, WriteError> {
        let mut bytes = Vec::new();
        for (index, label) in labels.into_iter().enumerate() {
            if label.contains('\n') {
                return Err(WriteError::Label { index });
            }
            bytes.extend_from_slice(label.as_bytes());
            bytes.push(b'\n');
        }
        self.section(SectionKind::Labels, bytes)
    }

    /// Adds the preprocessing of the model's first input.
    ///
    /// # Errors
    /// Returns an error if there is already a preprocessing section.
    pub fn preprocess(&mut self, preprocess: &Preprocess) -> Result<&mut Self, WriteError> {
        self.postcard(SectionKind::Preprocess, preprocess)
    }

    /// Adds the postprocessing of the model's first output.
    ///
    /// # Errors
    /// Returns an error if there is already a postprocessing section.
    pub fn postprocess(&mut self, postprocess: &Postprocess) -> Result<&mut Self, WriteError> {
        self.postcard(SectionKind::Postprocess, postprocess)
    }

    /// Adds the default values of inputs. [`Bundle::defaults`](crate::Bundle::defaults) checks
    /// that they fit.
    ///
    /// # Errors
    /// Returns an error if there are already default values.
    pub fn defaults(&mut self, defaults: &Defaults<'_>) -> Result<&mut Self, WriteError> {
        self.postcard(SectionKind::Defaults, defaults)
    }

    /// Adds how the two readings of the source model agreed.
    ///
    /// # Errors
    /// Returns an error if there is already such a section.
    pub fn readings(&mut self, readings: &Readings<'_>) -> Result<&mut Self, WriteError> {
        self.postcard(SectionKind::Readings, readings)
    }

    /// Computes the layout and all digests.
    ///
    /// # Errors
    /// Returns [`WriteError::Rule`] if readers would reject the bundle, for example because it has
    /// no manifest.
    pub fn seal(self) -> Result<Sealed<'a>, WriteError> {
        if self.sections.len() > MAX_SECTIONS {
            let found = u32::try_from(self.sections.len()).unwrap_or(u32::MAX);
            return Err(Error::TooManySections { found, limit: MAX_SECTIONS as u32 }.into());
        }
        let sections = self.sections.len() as u32;
        let mut records = Vec::with_capacity(self.sections.len());
        let mut position = first_offset(sections);
        for (section, part) in (0..).zip(&self.sections) {
            records.push(Record::new(part.kind, position, &part.bytes));
            position = position
                .checked_add(part.bytes.len() as u64)
                .and_then(next_offset)
                .ok_or(Error::TooLong { section })?;
        }
        let length = position + SLACK;
        let mut header =
            Header { version: FORMAT_VERSION, sections, length, root: Digest([0; 32]) };
        crate::table::check_table(&header, records.iter().copied())?;
        let mut root = RootHasher::new(&header.encode());
        records.iter().for_each(|record| root.record(&record.encode()));
        header.root = root.finish();
        Ok(Sealed { header, records, sections: self.sections })
    }

    /// Returns the bytes of the bundle.
    ///
    /// # Errors
    /// Returns the errors of [`Writer::seal`].
    pub fn finish(self) -> Result<Vec<u8>, WriteError> {
        self.seal().map(|sealed| sealed.to_bytes())
    }

    fn postcard(
        &mut self,
        section: SectionKind,
        value: &impl Serialize,
    ) -> Result<&mut Self, WriteError> {
        let bytes = postcard::to_allocvec(value)
            .map_err(|problem| WriteError::Encode { section, problem })?;
        self.section(section, bytes)
    }
}

/// A complete bundle, ready to be written.
///
/// # Examples
///
/// Write a bundle without a copy of its bytes in memory:
///
/// ```
/// use std::io::Write;
///
/// use hardtack_bundle::{Bundle, Writer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let mut writer = Writer::new();
/// for section in Bundle::parse(&file)?.sections() {
///     writer.section(section.kind, section.bytes)?;
/// }
/// let sealed = writer.seal()?;
/// let mut output = std::io::sink();
/// sealed.write(|chunk| output.write_all(chunk))?;
/// assert_eq!(sealed.root(), Bundle::parse(&file)?.root());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sealed<'a> {
    header: Header,
    records: Vec<Record>,
    sections: Vec<Part<'a>>,
}

impl Sealed<'_> {
    /// Returns the root digest.
    pub fn root(&self) -> Digest {
        self.header.root
    }

    /// Returns the length of the bundle in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a bundle is never empty")]
    pub fn len(&self) -> u64 {
        self.header.length
    }

    /// Passes the bytes of the bundle to `sink`, in order, in chunks of any size.
    ///
    /// # Errors
    /// Returns the first error of `sink`.
    pub fn write<E>(&self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
        sink(&self.header.encode())?;
        for record in &self.records {
            sink(&record.encode())?;
        }
        for part in &self.sections {
            sink(&part.bytes)?;
            let length = part.bytes.len();
            sink(&ZEROS[..length.next_multiple_of(ZEROS.len()) - length])?;
        }
        (0..SLACK / ALIGNMENT).try_for_each(|_| sink(&ZEROS))
    }

    /// Returns the bytes of the bundle.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header.length as usize);
        let written: Result<(), core::convert::Infallible> = self.write(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        match written {
            Ok(()) => bytes,
        }
    }
}
