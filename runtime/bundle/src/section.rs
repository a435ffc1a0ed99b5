//! Sections of a bundle and their kinds.

use crate::{Digest, Error};

/// A layout of packed weights for one family of processors.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::Family;
///
/// assert_eq!(Family::from_name("mcu"), Some(Family::Mcu));
/// let names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
/// assert_eq!(names, ["x86-zmm", "x86-ymm", "neon-dot", "neon-i8mm", "neon-mlal", "mcu"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Family {
    /// x86 with 512-bit vectors.
    X86Zmm = 1,
    /// x86 with 256-bit vectors.
    X86Ymm = 2,
    /// Arm with dot products of four bytes (SDOT).
    NeonDot = 3,
    /// Arm with 8-bit matrix multiplication (I8MM).
    NeonI8mm = 4,
    /// Arm with widening multiply-add (SMLAL) only.
    NeonMlal = 5,
    /// Microcontrollers. Scalar code on all processors also reads this layout.
    Mcu = 6,
}

impl Family {
    /// All families, by ascending number.
    pub const ALL: [Family; 6] = [
        Family::X86Zmm,
        Family::X86Ymm,
        Family::NeonDot,
        Family::NeonI8mm,
        Family::NeonMlal,
        Family::Mcu,
    ];

    /// Returns the number of the family in a section record.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Returns the family with this number, or `None` if there is none.
    pub const fn from_number(number: u16) -> Option<Family> {
        match number {
            1 => Some(Family::X86Zmm),
            2 => Some(Family::X86Ymm),
            3 => Some(Family::NeonDot),
            4 => Some(Family::NeonI8mm),
            5 => Some(Family::NeonMlal),
            6 => Some(Family::Mcu),
            _ => None,
        }
    }

    /// Returns the name shown to users, such as `x86-zmm` or `mcu`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::X86Zmm => "x86-zmm",
            Family::X86Ymm => "x86-ymm",
            Family::NeonDot => "neon-dot",
            Family::NeonI8mm => "neon-i8mm",
            Family::NeonMlal => "neon-mlal",
            Family::Mcu => "mcu",
        }
    }

    /// Returns the family with this name, or `None` if there is none.
    pub fn from_name(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }
}

impl core::fmt::Display for Family {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// The kind of a section, which determines its content. A bundle has at most one section of each
/// kind.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::{Family, SectionKind};
///
/// let kind = SectionKind::Weights { family: Family::Mcu, program: 0 };
/// assert_eq!(kind.to_string(), "weights mcu of program 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SectionKind {
    /// The [`Manifest`](crate::Manifest), in postcard. Every bundle has one.
    Manifest,
    /// The graph, in postcard.
    Graph,
    /// The integer program with this number.
    Program(u16),
    /// The packed weights of an integer program.
    Weights {
        /// The family that the weights are packed for.
        family: Family,
        /// The number of the program.
        program: u16,
    },
    /// The bytes of the graph's constants.
    Constants,
    /// The class labels.
    Labels,
    /// A [`Preprocess`](crate::process::Preprocess) in postcard.
    Preprocess,
    /// A [`Postprocess`](crate::process::Postprocess) in postcard.
    Postprocess,
    /// Golden vectors: inputs and their expected outputs.
    Golden,
    /// Licenses and attributions, as text.
    Notices,
    /// A signature of the root digest.
    Signature(u16),
    /// The default values of inputs, in postcard.
    Defaults,
    /// [`Readings`](crate::Readings) in postcard.
    Readings,
    /// A section that this version of the format does not define.
    Other {
        /// The number of the section kind.
        kind: u16,
        /// The family field of the section's record.
        family: u16,
        /// The index field of the section's record.
        index: u16,
    },
}

/// The kind, family and index fields of a record. Records are sorted by key.
pub(crate) type Key = (u16, u16, u16);

/// The kind number of [`SectionKind::Signature`].
pub(crate) const SIGNATURE: u16 = 11;

impl SectionKind {
    /// Returns whether the writer marks sections of this kind as critical. A reader must reject a
    /// bundle with a critical section that it does not know.
    pub const fn is_critical(self) -> bool {
        matches!(
            self,
            SectionKind::Manifest
                | SectionKind::Graph
                | SectionKind::Program(_)
                | SectionKind::Constants
                | SectionKind::Preprocess
                | SectionKind::Postprocess
        )
    }

    #[cfg(any(feature = "alloc", test))]
    pub(crate) const fn key(self) -> Key {
        match self {
            SectionKind::Manifest => (1, 0, 0),
            SectionKind::Graph => (2, 0, 0),
            SectionKind::Program(program) => (3, 0, program),
            SectionKind::Weights { family, program } => (4, family.number(), program),
            SectionKind::Constants => (5, 0, 0),
            SectionKind::Labels => (6, 0, 0),
            SectionKind::Preprocess => (7, 0, 0),
            SectionKind::Postprocess => (8, 0, 0),
            SectionKind::Golden => (9, 0, 0),
            SectionKind::Notices => (10, 0, 0),
            SectionKind::Signature(index) => (SIGNATURE, 0, index),
            SectionKind::Defaults => (12, 0, 0),
            SectionKind::Readings => (13, 0, 0),
            SectionKind::Other { kind, family, index } => (kind, family, index),
        }
    }

    pub(crate) const fn from_key((kind, family, index): Key) -> SectionKind {
        match (kind, family, index) {
            (1, 0, 0) => SectionKind::Manifest,
            (2, 0, 0) => SectionKind::Graph,
            (3, 0, program) => SectionKind::Program(program),
            (4, _, program) => match Family::from_number(family) {
                Some(family) => SectionKind::Weights { family, program },
                None => SectionKind::Other { kind, family, index },
            },
            (5, 0, 0) => SectionKind::Constants,
            (6, 0, 0) => SectionKind::Labels,
            (7, 0, 0) => SectionKind::Preprocess,
            (8, 0, 0) => SectionKind::Postprocess,
            (9, 0, 0) => SectionKind::Golden,
            (10, 0, 0) => SectionKind::Notices,
            (SIGNATURE, 0, index) => SectionKind::Signature(index),
            (12, 0, 0) => SectionKind::Defaults,
            (13, 0, 0) => SectionKind::Readings,
            _ => SectionKind::Other { kind, family, index },
        }
    }
}

impl core::fmt::Display for SectionKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            SectionKind::Manifest => f.write_str("manifest"),
            SectionKind::Graph => f.write_str("graph"),
            SectionKind::Program(program) => write!(f, "program {program}"),
            SectionKind::Weights { family, program } => {
                write!(f, "weights {family} of program {program}")
            }
            SectionKind::Constants => f.write_str("constants"),
            SectionKind::Labels => f.write_str("labels"),
            SectionKind::Preprocess => f.write_str("preprocess"),
            SectionKind::Postprocess => f.write_str("postprocess"),
            SectionKind::Golden => f.write_str("golden"),
            SectionKind::Notices => f.write_str("notices"),
            SectionKind::Signature(index) => write!(f, "signature {index}"),
            SectionKind::Defaults => f.write_str("defaults"),
            SectionKind::Readings => f.write_str("readings"),
            SectionKind::Other { kind, family, index } => {
                write!(f, "unknown {kind} (family {family}, index {index})")
            }
        }
    }
}

/// One section of a bundle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// The kind of the section.
    pub kind: SectionKind,
    /// Whether a reader that does not know the section must reject the bundle.
    pub critical: bool,
    /// The offset of the first byte, from the start of the file.
    pub offset: u64,
    /// The digest in the section's record.
    pub digest: Digest,
    /// The bytes of the section. They have been checked against the digest only if the bundle has
    /// been verified.
    pub bytes: &'a [u8],
}

impl Section<'_> {
    /// Checks the bytes against the digest.
    ///
    /// # Errors
    /// Returns [`Error::SectionDigest`] if they do not match.
    pub fn verify(&self) -> Result<(), Error> {
        if Digest::of(self.bytes) == self.digest {
            Ok(())
        } else {
            Err(Error::SectionDigest { section: self.kind })
        }
    }
}

impl core::fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Section")
            .field("kind", &self.kind)
            .field("critical", &self.critical)
            .field("offset", &self.offset)
            .field("length", &self.bytes.len())
            .field("digest", &self.digest)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_kinds_are_inverse() {
        for kind in 0..16 {
            for family in 0..8 {
                for index in 0..3 {
                    let key = (kind, family, index);
                    assert_eq!(SectionKind::from_key(key).key(), key);
                }
            }
        }
    }

    #[test]
    fn families_are_found_by_number_and_name() {
        for family in Family::ALL {
            assert_eq!(Family::from_number(family.number()), Some(family));
            assert_eq!(Family::from_name(family.name()), Some(family));
        }
        assert_eq!(Family::from_number(0), None);
        assert_eq!(Family::from_name("sse"), None);
    }
}
