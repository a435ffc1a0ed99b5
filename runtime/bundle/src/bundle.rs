//! A bundle in memory: opened, then verified.

use core::ops::Deref;

use serde::Deserialize;

use crate::header::{HEADER_BYTES, Header, array_at};
use crate::labels::text;
use crate::process::{Postprocess, Preprocess};
use crate::table::{RECORD_BYTES, Record, RootHasher, check_table, first_offset};
use crate::{
    Digest, Error, Family, FormatVersion, Golden, Labels, MAGIC, Manifest, Section, SectionKind,
};

/// A bundle whose header and section table are sound, so that each section is known to lie
/// within the file. The sections themselves have not been read: see [`Bundle::verify`].
#[derive(Clone, Copy)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> Bundle<'a> {
    /// Opens the bundle that `bytes` are, exactly. Reads header and table only.
    ///
    /// Sections are multiples of [`ALIGNMENT`](crate::ALIGNMENT) from the start of `bytes`;
    /// where their addresses must be aligned, `bytes` must be.
    ///
    /// # Errors
    /// Where the bytes are not a bundle of this major version, lack a byte or have one too
    /// many, or where header or table are damaged or break a rule of the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Bundle<'a>, Error> {
        let header = decode_header(bytes)?;
        let found = bytes.len() as u64;
        if found < header.length {
            return Err(Error::Truncated { expected: header.length, found });
        }
        if found > header.length {
            return Err(Error::Trailing { expected: header.length });
        }
        let expected = first_offset(header.sections);
        if found < expected {
            return Err(Error::Truncated { expected, found });
        }
        let bundle = Bundle { bytes, header };
        let mut root = RootHasher::new(&array_at(bytes, 0));
        for index in 0..header.sections {
            root.record(&array_at(bytes, record_at(index)));
        }
        root.check(&header)?;
        check_table(&header, bundle.records())?;
        Ok(bundle)
    }

    /// Bytes of the bundle that `bytes` begin with, as its header states. For a place in flash
    /// that is larger than the bundle in it: cut that many bytes out and parse them.
    ///
    /// # Errors
    /// Where the bytes do not begin with the header of a bundle of this major version.
    pub fn stated_length(bytes: &[u8]) -> Result<u64, Error> {
        decode_header(bytes).map(|header| header.length)
    }

    /// Reads the whole bundle and compares every section's digest and all padding.
    ///
    /// # Errors
    /// The first damage, in the order of the file.
    pub fn verify(self) -> Result<Verified<'a>, Error> {
        let mut end = first_offset(self.header.sections);
        for section in self.sections() {
            self.verify_padding(end, section.offset)?;
            section.verify()?;
            end = section.offset + section.bytes.len() as u64;
        }
        self.verify_padding(end, self.header.length)?;
        Ok(Verified(self))
    }

    /// Version of the byte format.
    pub fn format_version(&self) -> FormatVersion {
        self.header.version
    }

    /// The root digest: it names the whole bundle, as it covers the digests of all sections.
    pub fn root(&self) -> Digest {
        self.header.root
    }

    /// The whole file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// All sections, in the order of the file.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        let bytes = self.bytes;
        self.records().map(move |record| {
            let start = record.offset as usize;
            Section {
                kind: record.kind(),
                critical: record.is_critical(),
                offset: record.offset,
                digest: record.digest,
                bytes: &bytes[start..start + record.length as usize],
            }
        })
    }

    /// The section of this kind, where the bundle has one.
    pub fn section(&self, kind: SectionKind) -> Option<Section<'a>> {
        self.sections().find(|section| section.kind == kind)
    }

    /// The manifest. The value takes about 15 kB: mind it where the stack is small.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn manifest(&self) -> Result<Manifest<'a>, Error> {
        let manifest: Manifest = self.decode(SectionKind::Manifest)?.ok_or(Error::NoManifest)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The graph, where the bundle has one.
    ///
    /// # Errors
    /// Where it is malformed, needs an operator that this crate does not have, or names
    /// constants that are not in the bundle.
    #[cfg(feature = "alloc")]
    pub fn graph(&self) -> Result<Option<crate::graph::Graph>, crate::graph::GraphError> {
        let Some(section) = self.section(SectionKind::Graph) else { return Ok(None) };
        let graph = crate::graph::Graph::from_bytes(section.bytes)?;
        graph.check_constants(self.constants().len() as u64)?;
        Ok(Some(graph))
    }

    /// Number of integer programs. They are numbered from 0 without gaps.
    pub fn programs(&self) -> u16 {
        let program = |section: &Section| matches!(section.kind, SectionKind::Program(_));
        self.sections().filter(program).count() as u16
    }

    /// The bytes of an integer program.
    pub fn program(&self, program: u16) -> Option<&'a [u8]> {
        self.section(SectionKind::Program(program)).map(|section| section.bytes)
    }

    /// The weights of an integer program, packed for a family, where the bundle has them.
    pub fn weights(&self, program: u16, family: Family) -> Option<&'a [u8]> {
        self.section(SectionKind::Weights { family, program }).map(|section| section.bytes)
    }

    /// The families that an integer program's weights are packed for.
    pub fn families(&self, program: u16) -> impl Iterator<Item = Family> + use<'a> {
        self.sections().filter_map(move |section| match section.kind {
            SectionKind::Weights { family, program: of } if of == program => Some(family),
            _ => None,
        })
    }

    /// The constants of the graph; empty where the bundle has none.
    pub fn constants(&self) -> &'a [u8] {
        self.section(SectionKind::Constants).map_or(&[], |section| section.bytes)
    }

    /// Names of the classes, where the bundle has them.
    ///
    /// # Errors
    /// Where they are malformed.
    pub fn labels(&self) -> Result<Option<Labels<'a>>, Error> {
        self.section(SectionKind::Labels).map(|section| Labels::parse(section.bytes)).transpose()
    }

    /// How the model's input is made, where the bundle says so.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn preprocess(&self) -> Result<Option<Preprocess>, Error> {
        self.decode(SectionKind::Preprocess)
    }

    /// What becomes of the model's output, where the bundle says so.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn postprocess(&self) -> Result<Option<Postprocess>, Error> {
        self.decode(SectionKind::Postprocess)
    }

    /// Inputs with the outputs they must give, where the bundle has them.
    ///
    /// # Errors
    /// Where they are malformed.
    pub fn golden(&self) -> Result<Option<Golden<'a>>, Error> {
        self.section(SectionKind::Golden).map(|section| Golden::parse(section.bytes)).transpose()
    }

    /// Licences and attributions, where the bundle has them.
    ///
    /// # Errors
    /// Where they are not UTF-8.
    pub fn notices(&self) -> Result<Option<&'a str>, Error> {
        let kind = SectionKind::Notices;
        self.section(kind).map(|section| text(kind, section.bytes)).transpose()
    }

    fn records(&self) -> impl Iterator<Item = Record> + use<'a> {
        let bytes = self.bytes;
        (0..self.header.sections)
            .map(move |index| Record::decode(&array_at(bytes, record_at(index))))
    }

    /// Decodes a section of postcard that must fill its bytes.
    fn decode<T: Deserialize<'a>>(&self, kind: SectionKind) -> Result<Option<T>, Error> {
        let Some(section) = self.section(kind) else { return Ok(None) };
        match postcard::take_from_bytes(section.bytes) {
            Ok((value, [])) => Ok(Some(value)),
            Ok((_, rest)) => Err(Error::LeftOver { section: kind, bytes: rest.len() as u64 }),
            Err(problem) => Err(Error::Malformed { section: kind, problem }),
        }
    }

    fn verify_padding(&self, start: u64, end: u64) -> Result<(), Error> {
        let padding = &self.bytes[start as usize..end as usize];
        match padding.iter().position(|byte| *byte != 0) {
            Some(at) => Err(Error::Padding { offset: start + at as u64 }),
            None => Ok(()),
        }
    }
}

impl core::fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bundle")
            .field("version", &self.header.version)
            .field("root", &self.header.root)
            .field("sections", &self.header.sections)
            .field("length", &self.header.length)
            .finish()
    }
}

/// A bundle in which every digest and all padding hold: exactly the bytes that its root digest
/// names. Who wrote them is for a signature to say.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a>(Bundle<'a>);

impl<'a> Verified<'a> {
    /// The bundle.
    pub fn bundle(&self) -> Bundle<'a> {
        self.0
    }
}

impl<'a> Deref for Verified<'a> {
    type Target = Bundle<'a>;

    fn deref(&self) -> &Bundle<'a> {
        &self.0
    }
}

fn decode_header(bytes: &[u8]) -> Result<Header, Error> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(Error::NotABundle);
        }
        let found = bytes.len() as u64;
        return Err(Error::Truncated { expected: HEADER_BYTES as u64, found });
    };
    Header::decode(header)
}

fn record_at(index: u32) -> usize {
    HEADER_BYTES + RECORD_BYTES * index as usize
}
