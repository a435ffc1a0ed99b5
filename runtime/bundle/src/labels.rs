//! The labels section: UTF-8 text, with a line feed after every label.

use crate::{Error, SectionKind};

/// The class labels, in the order of the model's output.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::Labels;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let labels = Labels::parse(b"cat\ndog\n")?;
/// assert_eq!(labels.label(1), Some("dog"));
/// assert_eq!(labels.iter().count(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    text: &'a str,
}

impl<'a> Labels<'a> {
    /// Parses the bytes of a labels section.
    ///
    /// # Errors
    /// Returns an error if the bytes are not UTF-8 or do not end with a line feed.
    pub fn parse(bytes: &'a [u8]) -> Result<Labels<'a>, Error> {
        let section = SectionKind::Labels;
        let text = text(section, bytes)?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(Error::Invalid { section, problem: "the last label lacks a line feed" });
        }
        Ok(Labels { text })
    }

    /// Returns an iterator over the labels, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.text.split_terminator('\n')
    }

    /// Returns the label of the class `index`, in time proportional to `index`.
    pub fn label(&self, index: usize) -> Option<&'a str> {
        self.iter().nth(index)
    }
}

/// Returns the bytes of a section as text.
pub(crate) fn text(section: SectionKind, bytes: &[u8]) -> Result<&str, Error> {
    core::str::from_utf8(bytes)
        .map_err(|error| Error::NotUtf8 { section, offset: error.valid_up_to() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_label() {
        let labels = Labels::parse("tench\n\nKatze ä\n".as_bytes()).unwrap();
        assert!(labels.iter().eq(["tench", "", "Katze ä"]));
        assert_eq!(labels.label(2), Some("Katze ä"));
        assert_eq!(labels.label(3), None);
        assert_eq!(Labels::parse(b"").unwrap().iter().count(), 0);
    }

    #[test]
    fn malformed_text_is_rejected() {
        assert!(matches!(Labels::parse(b"a\n\xff\n"), Err(Error::NotUtf8 { offset: 2, .. })));
        assert!(matches!(Labels::parse(b"a\nb"), Err(Error::Invalid { .. })));
    }
}
