//! Why a bundle was refused.

use crate::{Digest, FORMAT_VERSION, FormatVersion, SectionKind};

/// Why a bundle, or a part of it, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not begin as a bundle does.
    #[error("this is not a Hardtack bundle")]
    NotABundle,
    /// The first bytes look like a bundle's after a transfer in text mode.
    #[error("the bundle was damaged by a transfer as text; transfer it again as binary")]
    TextTransfer,
    /// Another major version of the format.
    #[error(
        "the bundle has format version {found}, but this runtime reads version {ours}: convert \
         the model again with a converter of format version {ours}, or use a runtime of format \
         version {found}",
        ours = FORMAT_VERSION
    )]
    OtherMajor {
        /// Version of the bundle.
        found: FormatVersion,
    },
    /// A section that must not be skipped is unknown.
    #[error(
        "the bundle (format version {version}) needs section kind {kind} (family {family}, index \
         {index}), which this runtime (format version {ours}) does not have: update the runtime, \
         or convert the model again with a converter of format version {ours}",
        ours = FORMAT_VERSION
    )]
    UnknownCritical {
        /// Number of the kind.
        kind: u16,
        /// Family field of its record.
        family: u16,
        /// Index field of its record.
        index: u16,
        /// Version of the bundle.
        version: FormatVersion,
    },
    /// The file is shorter than it should be.
    #[error(
        "the bundle is cut off: it has {found} of at least {expected} bytes; transfer it again"
    )]
    Truncated {
        /// Bytes that it should have at least.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The file goes on after its end.
    #[error("bytes follow the end of the bundle, which has {expected} bytes; transfer it again")]
    Trailing {
        /// Bytes that the header states.
        expected: u64,
    },
    /// More sections than there may be.
    #[error("the bundle has {found} sections; this reader takes at most {limit}")]
    TooManySections {
        /// Sections that the header states.
        found: u32,
        /// Most that there may be.
        limit: u32,
    },
    /// Header and table do not have the root digest that the header states.
    #[error("the bundle's header or section table is damaged (root digest {found}, not {stated})")]
    RootDigest {
        /// The digest in the header.
        stated: Digest,
        /// The digest that header and table have.
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
    /// Section records do not ascend.
    #[error("section {section} repeats or precedes the kind of the section before it")]
    Order {
        /// The section's position in the table.
        section: u32,
    },
    /// Programs are not numbered from 0 without gaps.
    #[error("section {section} is a program whose number does not follow the one before")]
    ProgramGap {
        /// The section's position in the table.
        section: u32,
    },
    /// Weights belong to a program that the bundle does not have.
    #[error("section {section} holds weights of program {program}, which the bundle does not have")]
    NoProgram {
        /// The section's position in the table.
        section: u32,
        /// Number of the program.
        program: u16,
    },
    /// A section does not start where the one before ends.
    #[error(
        "section {section} starts at byte {found}, not at {expected}: sections follow each other \
         without holes or overlaps"
    )]
    Misplaced {
        /// The section's position in the table.
        section: u32,
        /// Where it must start.
        expected: u64,
        /// Where it starts.
        found: u64,
    },
    /// A section's end lies beyond what numbers can express.
    #[error("section {section} is longer than a file can be")]
    TooLong {
        /// The section's position in the table.
        section: u32,
    },
    /// The stated length is not that of header, table, sections and slack.
    #[error("the header states {stated} bytes, but the sections make {expected}")]
    Length {
        /// Bytes that the header states.
        stated: u64,
        /// Bytes that follow from the table.
        expected: u64,
    },
    /// A section's bytes do not have the digest of its record.
    #[error("the bundle's section {section} is damaged: its digest differs; transfer it again")]
    SectionDigest {
        /// The section.
        section: SectionKind,
    },
    /// A byte between or after sections is not zero.
    #[error("the padding of the bundle is damaged at byte {offset}; transfer it again")]
    Padding {
        /// First byte of padding that is not zero, from the start of the file.
        offset: u64,
    },
    /// A section's bytes are not what its kind says.
    #[error("the bundle's section {section} is malformed ({problem})")]
    Malformed {
        /// The section.
        section: SectionKind,
        /// What is wrong.
        problem: postcard::Error,
    },
    /// A section goes on after its content.
    #[error("the bundle's section {section} has {bytes} bytes left over after its content")]
    LeftOver {
        /// The section.
        section: SectionKind,
        /// Bytes that are left over.
        bytes: u64,
    },
    /// A section's content breaks a rule.
    #[error("the bundle's section {section} is not valid: {problem}")]
    Invalid {
        /// The section.
        section: SectionKind,
        /// What is wrong.
        problem: &'static str,
    },
    /// A section of text is not UTF-8.
    #[error("the bundle's section {section} is not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// The section.
        section: SectionKind,
        /// First byte that is not, from the start of the section.
        offset: u64,
    },
    /// A test vector breaks a rule.
    #[error("the bundle's golden vectors are not valid at byte {offset}: {problem}")]
    Golden {
        /// Where, from the start of the section.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
}
