//! The error type for reading bundles.

use crate::{Digest, FORMAT_VERSION, FormatVersion, SectionKind};

/// Why a bundle, or a part of one, was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not begin with the bundle magic number.
    #[error("this is not a Hardtack bundle")]
    NotABundle,
    /// The magic number is damaged in the way that a transfer in text mode damages it.
    #[error("the bundle was damaged by a transfer in text mode; transfer it again in binary mode")]
    TextTransfer,
    /// The bundle has a different major version of the format.
    #[error(
        "the bundle has format version {found}, but this runtime reads version {ours}: convert \
         the model again with a converter of format version {ours}, or use a runtime of format \
         version {found}",
        ours = FORMAT_VERSION
    )]
    OtherMajor {
        /// The format version of the bundle.
        found: FormatVersion,
    },
    /// The bundle has a critical section of an unknown kind.
    #[error(
        "the bundle (format version {version}) needs section kind {kind} (family {family}, index \
         {index}), which this runtime (format version {ours}) does not have: update the runtime, \
         or convert the model again with a converter of format version {ours}",
        ours = FORMAT_VERSION
    )]
    UnknownCritical {
        /// The number of the section kind.
        kind: u16,
        /// The family field of the section's record.
        family: u16,
        /// The index field of the section's record.
        index: u16,
        /// The format version of the bundle.
        version: FormatVersion,
    },
    /// The file is shorter than its header or section table requires.
    #[error(
        "the bundle is truncated: it has {found} of at least {expected} bytes; transfer it again"
    )]
    Truncated {
        /// The least number of bytes that the file must have.
        expected: u64,
        /// The number of bytes that the file has.
        found: u64,
    },
    /// The file continues after the end of the bundle.
    #[error("bytes follow the end of the bundle, which has {expected} bytes; transfer it again")]
    Trailing {
        /// The length in the header, in bytes.
        expected: u64,
    },
    /// The bundle has more sections than the format, or this reader, allows.
    #[error("the bundle has {found} sections; this reader takes at most {limit}")]
    TooManySections {
        /// The section count in the header.
        found: u32,
        /// The maximum number of sections.
        limit: u32,
    },
    /// The digest of the header and section table differs from the root digest in the header.
    #[error(
        "the bundle's header or section table is damaged: the root digest is {found}, but the header \
     states {stated}; transfer it again"
    )]
    RootDigest {
        /// The digest in the header.
        stated: Digest,
        /// The computed digest of the header and section table.
        found: Digest,
    },
    /// Reserved bytes of the header are not zero.
    #[error("the bundle's header has reserved bytes that are not zero")]
    ReservedInHeader,
    /// Reserved bytes or flags of a section record are not zero.
    #[error("the record of section {section} has reserved bytes or flags that are not zero")]
    ReservedInRecord {
        /// The section's position in the table.
        section: u32,
    },
    /// The first section is not the manifest.
    #[error("the bundle has no manifest: its first section must be one")]
    NoManifest,
    /// The section records are not in ascending order.
    #[error("the records of sections are not in ascending order at section {section}")]
    Order {
        /// The section's position in the table.
        section: u32,
    },
    /// Programs are not numbered consecutively from 0.
    #[error("section {section} is a program, but programs are not numbered consecutively from 0")]
    ProgramGap {
        /// The section's position in the table.
        section: u32,
    },
    /// A section holds weights of a program that is not in the bundle.
    #[error("section {section} holds weights of program {program}, which is not in the bundle")]
    NoProgram {
        /// The section's position in the table.
        section: u32,
        /// The number of the program.
        program: u16,
    },
    /// A section does not start where the previous section ends, rounded up to the alignment.
    #[error(
        "section {section} starts at byte {found} instead of {expected}: sections must have no gaps \
         or overlaps"
    )]
    Misplaced {
        /// The section's position in the table.
        section: u32,
        /// The required offset, in bytes from the start of the file.
        expected: u64,
        /// The offset in the record.
        found: u64,
    },
    /// The end of a section overflows a `u64`.
    #[error("section {section} is too long: its end exceeds 64 bits")]
    TooLong {
        /// The section's position in the table.
        section: u32,
    },
    /// The length in the header is not the sum of header, table, sections and slack.
    #[error(
        "the header states a length of {stated} bytes, but the section table requires {expected}"
    )]
    Length {
        /// The length in the header, in bytes.
        stated: u64,
        /// The length that the section table requires, in bytes.
        expected: u64,
    },
    /// The digest of a section differs from the digest in its record.
    #[error(
        "the bundle's section {section} is damaged: its digest does not match; transfer it again"
    )]
    SectionDigest {
        /// The section.
        section: SectionKind,
    },
    /// A padding byte between or after the sections is not zero.
    #[error("the padding of the bundle is damaged at byte {offset}; transfer it again")]
    Padding {
        /// The offset of the first nonzero padding byte, from the start of the file.
        offset: u64,
    },
    /// A section cannot be decoded as its kind.
    #[error("the bundle's section {section} is malformed ({problem})")]
    Malformed {
        /// The section.
        section: SectionKind,
        /// The decoding error.
        problem: postcard::Error,
    },
    /// A section has more bytes than its content.
    #[error("the bundle's section {section} has {bytes} extra bytes after its content")]
    LeftOver {
        /// The section.
        section: SectionKind,
        /// The number of extra bytes.
        bytes: u64,
    },
    /// A section's content breaks a rule of the format.
    #[error("the bundle's section {section} is not valid: {problem}")]
    Invalid {
        /// The section.
        section: SectionKind,
        /// The rule that the content breaks.
        problem: &'static str,
    },
    /// A section of text is not UTF-8.
    #[error("the bundle's section {section} is not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// The section.
        section: SectionKind,
        /// The offset of the first invalid byte, from the start of the section.
        offset: u64,
    },
    /// A golden vector breaks a rule of the format.
    #[error("the bundle's golden vectors are not valid at byte {offset}: {problem}")]
    Golden {
        /// The offset of the problem in bytes, from the start of the section.
        offset: u64,
        /// The rule that the vector breaks.
        problem: &'static str,
    },
}
