//! Writing bundles: the same sections give the same bytes on every host.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use serde::Serialize;

use crate::graph::{Graph, GraphError};
use crate::header::Header;
use crate::manifest::Manifest;
use crate::process::{Postprocess, Preprocess};
use crate::table::{Record, RootHasher, first_offset, next_offset};
use crate::{ALIGNMENT, Digest, Error, FORMAT_VERSION, MAX_SECTIONS, SLACK, SectionKind};

/// Why a bundle cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Two sections of one kind.
    #[error("the bundle already has a section {0}")]
    Duplicate(SectionKind),
    /// A kind given by numbers that this version of the format knows by name.
    #[error("section {0} must be added by its name, not by numbers")]
    NotOther(SectionKind),
    /// A label holds a line feed.
    #[error("label {index} holds a line feed")]
    Label {
        /// Position of the label.
        index: usize,
    },
    /// A test vector does not fit the format.
    #[error("the golden vectors do not fit the format: {0}")]
    Golden(&'static str),
    /// A value cannot be encoded.
    #[error("the section {section} cannot be encoded ({problem})")]
    Encode {
        /// The section.
        section: SectionKind,
        /// What went wrong.
        problem: postcard::Error,
    },
    /// The graph is not consistent.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// What was added is not a bundle.
    #[error(transparent)]
    Rule(#[from] Error),
}

/// Collects the sections of a bundle, in any order.
#[derive(Clone, Debug, Default)]
pub struct Writer<'a> {
    /// Sorted by key.
    sections: Vec<Part<'a>>,
}

#[derive(Clone, Debug)]
struct Part<'a> {
    kind: SectionKind,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Writer<'a> {
    /// No sections yet.
    pub fn new() -> Writer<'a> {
        Writer::default()
    }

    /// Adds a section. Bytes that are borrowed are not copied until they are written.
    ///
    /// # Errors
    /// Where there is one of this kind already, or [`SectionKind::Other`] has the numbers of a
    /// kind that has a name.
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
    /// Where it is there already, or a state of it names an input or output that does not exist.
    pub fn manifest(&mut self, manifest: &Manifest<'_>) -> Result<&mut Self, WriteError> {
        manifest.check()?;
        self.postcard(SectionKind::Manifest, manifest)
    }

    /// Adds the graph.
    ///
    /// # Errors
    /// Where it is there already, or [`Graph::check`] refuses it.
    pub fn graph(&mut self, graph: &Graph) -> Result<&mut Self, WriteError> {
        graph.check()?;
        self.section(SectionKind::Graph, graph.to_bytes()?)
    }

    /// Adds the names of the classes.
    ///
    /// # Errors
    /// Where they are there already, or one holds a line feed.
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

    /// Adds how the model's input is made.
    ///
    /// # Errors
    /// Where it is there already.
    pub fn preprocess(&mut self, preprocess: &Preprocess) -> Result<&mut Self, WriteError> {
        self.postcard(SectionKind::Preprocess, preprocess)
    }

    /// Adds what becomes of the model's output.
    ///
    /// # Errors
    /// Where it is there already.
    pub fn postprocess(&mut self, postprocess: &Postprocess) -> Result<&mut Self, WriteError> {
        self.postcard(SectionKind::Postprocess, postprocess)
    }

    /// Fixes the layout and computes all digests.
    ///
    /// # Errors
    /// [`WriteError::Rule`] where a reader would refuse the bundle, for instance for want of a
    /// manifest.
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

    /// The bundle's bytes.
    ///
    /// # Errors
    /// As [`Writer::seal`].
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

/// A bundle whose every byte is fixed.
#[derive(Clone, Debug)]
pub struct Sealed<'a> {
    header: Header,
    records: Vec<Record>,
    sections: Vec<Part<'a>>,
}

impl Sealed<'_> {
    /// The root digest.
    pub fn root(&self) -> Digest {
        self.header.root
    }

    /// Bytes of the bundle.
    #[expect(clippy::len_without_is_empty, reason = "a bundle is never empty")]
    pub fn len(&self) -> u64 {
        self.header.length
    }

    /// Hands the bundle's bytes to `sink`, in order, in pieces of any size.
    ///
    /// # Errors
    /// The first error of `sink`.
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

    /// The bundle's bytes.
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
