//! Names of tensors and steps, for reports only.
//!
//! The names section contains, for each tensor and then for each step, the length of the name as
//! u16 and its UTF-8 bytes. It is empty if the program has no names.

/// Returns the name at `index` of a names section.
pub(crate) fn name(bytes: &[u8], index: usize) -> Option<&str> {
    let mut rest = bytes;
    for _ in 0..index {
        rest = split(rest)?.1;
    }
    Some(take(rest)?.0)
}

/// Returns whether `bytes` is empty or contains exactly `count` names.
pub(crate) fn are_well_formed(bytes: &[u8], count: usize) -> bool {
    let mut rest = bytes;
    for _ in 0..count {
        match take(rest) {
            Some((_, tail)) => rest = tail,
            None => return bytes.is_empty(),
        }
    }
    rest.is_empty()
}

fn take(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = split(bytes)?;
    Some((core::str::from_utf8(name).ok()?, rest))
}

/// The bytes of the first name, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

/// Appends a name, truncated to 65535 bytes.
#[cfg(feature = "alloc")]
pub(crate) fn push(bytes: &mut alloc::vec::Vec<u8>, name: &str) {
    let name = &name[..name.floor_char_boundary(usize::from(u16::MAX))];
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
}
