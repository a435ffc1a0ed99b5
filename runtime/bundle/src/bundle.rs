//! A bundle in memory, opened and verified.

use core::ops::Deref;

use serde::Deserialize;

use crate::default::{self, Defaults};
use crate::header::{HEADER_BYTES, Header, array_at};
use crate::labels::text;
use crate::process::{Postprocess, Preprocess};
use crate::table::{RECORD_BYTES, Record, RootHasher, check_table, first_offset};
use crate::{
    Digest, Error, Family, FormatVersion, Golden, Labels, MAGIC, Manifest, Readings, Section,
    SectionKind,
};

/// A bundle with a valid header and section table, so every section lies within the file.
/// The contents of the sections have not been checked; see [`Bundle::verify`].
///
/// # Examples
///
/// ```
/// use hardtack_bundle::{Bundle, Family, SectionKind};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// let bundle = Bundle::parse(&file)?;
/// assert_eq!(bundle.manifest()?.outputs[0].name, "probs");
/// assert_eq!(bundle.programs(), 1);
/// assert_eq!(bundle.families(0).collect::<Vec<_>>(), [Family::Mcu]);
/// assert!(bundle.section(SectionKind::Labels).is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> Bundle<'a> {
    /// Opens the bundle in `bytes`, which must hold exactly one bundle. Reads only the header and
    /// the section table.
    ///
    /// Section offsets are multiples of [`ALIGNMENT`](crate::ALIGNMENT). Align `bytes` where the
    /// addresses of sections must be aligned.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a bundle of this major version, if there are too few
    /// or too many of them, or if the header or table is damaged or breaks a rule of the format.
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

    /// Returns the length in bytes of the bundle at the start of `bytes`, from its header. Use it
    /// where a flash region is larger than its bundle, to find the bytes to parse.
    ///
    /// # Errors
    /// Returns an error if `bytes` do not begin with the header of a bundle of this major version.
    ///
    /// # Examples
    ///
    /// Find the bundle in a flash region that is larger:
    ///
    /// ```
    /// use hardtack_bundle::Bundle;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// # let mut flash = std::fs::read("kws_dscnn.tack")?;
    /// # flash.resize(64 * 1024, 0xFF);
    /// // flash: 64 KiB, of which the bundle takes the first part.
    /// let length = Bundle::stated_length(&flash)? as usize;
    /// let bundle = Bundle::parse(&flash[..length])?;
    /// assert_eq!(bundle.manifest()?.name, "kws_dscnn");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stated_length(bytes: &[u8]) -> Result<u64, Error> {
        decode_header(bytes).map(|header| header.length)
    }

    /// Reads the whole bundle and checks the digest of every section and all padding.
    ///
    /// # Errors
    /// Returns the first damage in file order.
    ///
    /// # Examples
    ///
    /// ```
    /// use hardtack_bundle::{Bundle, Error};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
    /// # std::env::set_current_dir(folder)?;
    /// let mut file = std::fs::read("kws_dscnn.tack")?;
    /// Bundle::parse(&file)?.verify()?;
    ///
    /// file[20_000] ^= 1;
    /// let error = Bundle::parse(&file)?.verify().unwrap_err();
    /// println!("{error}");
    /// assert!(matches!(error, Error::SectionDigest { .. }));
    /// # Ok(())
    /// # }
    /// ```
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

    /// Returns the version of the format.
    pub fn format_version(&self) -> FormatVersion {
        self.header.version
    }

    /// Returns the root digest, which identifies the bundle: it covers the digests of all sections
    /// except signatures.
    pub fn root(&self) -> Digest {
        self.header.root
    }

    /// Returns the bytes of the whole file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns an iterator over all sections, in file order.
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

    /// Returns the section of this kind, if the bundle has one.
    pub fn section(&self, kind: SectionKind) -> Option<Section<'a>> {
        self.sections().find(|section| section.kind == kind)
    }

    /// Decodes the manifest. The value takes about 15 kB, which matters on a small stack.
    ///
    /// # Errors
    /// Returns an error if the manifest is malformed.
    pub fn manifest(&self) -> Result<Manifest<'a>, Error> {
        let manifest: Manifest = self.decode(SectionKind::Manifest)?.ok_or(Error::NoManifest)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Decodes the graph, if the bundle has one.
    ///
    /// # Errors
    /// Returns an error if the graph is malformed, uses an operator that this crate does not
    /// support, or refers to constants that are not in the bundle.
    #[cfg(feature = "alloc")]
    pub fn graph(&self) -> Result<Option<crate::graph::Graph>, crate::graph::GraphError> {
        let Some(section) = self.section(SectionKind::Graph) else { return Ok(None) };
        let graph = crate::graph::Graph::from_bytes(section.bytes)?;
        graph.check_constants(self.constants().len() as u64)?;
        Ok(Some(graph))
    }

    /// Returns the number of integer programs. They are numbered consecutively from 0.
    pub fn programs(&self) -> u16 {
        let program = |section: &Section| matches!(section.kind, SectionKind::Program(_));
        self.sections().filter(program).count() as u16
    }

    /// Returns the bytes of an integer program, if the bundle has it.
    pub fn program(&self, program: u16) -> Option<&'a [u8]> {
        self.section(SectionKind::Program(program)).map(|section| section.bytes)
    }

    /// Returns the weights of an integer program packed for a family, if the bundle has them.
    pub fn weights(&self, program: u16, family: Family) -> Option<&'a [u8]> {
        self.section(SectionKind::Weights { family, program }).map(|section| section.bytes)
    }

    /// Returns the families for which the bundle has packed weights of an integer program.
    pub fn families(&self, program: u16) -> impl Iterator<Item = Family> + use<'a> {
        self.sections().filter_map(move |section| match section.kind {
            SectionKind::Weights { family, program: of } if of == program => Some(family),
            _ => None,
        })
    }

    /// Returns the bytes of the graph's constants. Empty if the bundle has none.
    pub fn constants(&self) -> &'a [u8] {
        self.section(SectionKind::Constants).map_or(&[], |section| section.bytes)
    }

    /// Returns the class labels, if the bundle has them.
    ///
    /// # Errors
    /// Returns an error if the labels are malformed.
    pub fn labels(&self) -> Result<Option<Labels<'a>>, Error> {
        self.section(SectionKind::Labels).map(|section| Labels::parse(section.bytes)).transpose()
    }

    /// Decodes the preprocessing of the model's input, if the bundle describes it.
    ///
    /// # Errors
    /// Returns an error if the section is malformed.
    pub fn preprocess(&self) -> Result<Option<Preprocess>, Error> {
        self.decode(SectionKind::Preprocess)
    }

    /// Decodes the postprocessing of the model's output, if the bundle describes it.
    ///
    /// # Errors
    /// Returns an error if the section is malformed.
    pub fn postprocess(&self) -> Result<Option<Postprocess>, Error> {
        self.decode(SectionKind::Postprocess)
    }

    /// Returns the golden vectors (inputs and their expected outputs), if the bundle has them.
    ///
    /// # Errors
    /// Returns an error if the golden vectors are malformed.
    pub fn golden(&self) -> Result<Option<Golden<'a>>, Error> {
        self.section(SectionKind::Golden).map(|section| Golden::parse(section.bytes)).transpose()
    }

    /// Decodes the default values of inputs; empty if the bundle has none.
    ///
    /// # Errors
    /// Returns an error if the section is malformed, or if a value does not fit its input.
    pub fn defaults(&self) -> Result<Defaults<'a>, Error> {
        let Some(defaults) = self.decode(SectionKind::Defaults)? else {
            return Ok(Defaults::new());
        };
        default::check(&defaults, &self.manifest()?)?;
        Ok(defaults)
    }

    /// Decodes how the two readings of the source model agreed, if the bundle says so.
    ///
    /// # Errors
    /// Returns an error if the section is malformed.
    pub fn readings(&self) -> Result<Option<Readings<'a>>, Error> {
        self.decode(SectionKind::Readings)
    }

    /// Returns the text of licenses and attributions, if the bundle has it.
    ///
    /// # Errors
    /// Returns an error if the text is not UTF-8.
    pub fn notices(&self) -> Result<Option<&'a str>, Error> {
        let kind = SectionKind::Notices;
        self.section(kind).map(|section| text(kind, section.bytes)).transpose()
    }

    fn records(&self) -> impl Iterator<Item = Record> + use<'a> {
        let bytes = self.bytes;
        (0..self.header.sections)
            .map(move |index| Record::decode(&array_at(bytes, record_at(index))))
    }

    /// Decodes a postcard section, which must not have extra bytes.
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

/// A bundle whose digests and padding have all been checked: exactly the bytes that its root
/// digest identifies. Verification does not prove who wrote them; that takes a signature.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a>(Bundle<'a>);

impl<'a> Verified<'a> {
    /// Returns the verified bundle.
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
