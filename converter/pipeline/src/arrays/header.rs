//! The header of a `.npy` array: a magic number, a version, and a Python dictionary as text.

use std::io::Read;

use hardtack::Tensor;
use hardtack_bundle::DType;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The maximum length of a header in bytes, far more than 32 dimensions need.
const MAX_TEXT: usize = 4096;
/// NumPy aligns the elements to this many bytes.
const ALIGNMENT: usize = 64;

/// The element type, order and shape of an array.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub dtype: DType,
    /// Whether the most significant byte of an element comes first.
    pub big_endian: bool,
    /// Whether the first dimension varies fastest.
    pub fortran_order: bool,
    pub shape: Vec<usize>,
}

/// Why an array cannot be read, as a phrase that follows the array's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// The element type is not supported, for example text.
    #[error("{0}")]
    Elements(String),
    /// The array is malformed, or of a record type.
    #[error("{0}")]
    Malformed(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Problem {
        Problem::Malformed(problem)
    }
}

impl From<&str> for Problem {
    fn from(problem: &str) -> Problem {
        Problem::Malformed(problem.into())
    }
}

impl Header {
    /// Returns the header for the bytes of [`Tensor::to_bytes`].
    pub(super) fn of(tensor: &Tensor) -> Header {
        Header {
            dtype: tensor.dtype(),
            big_endian: false,
            fortran_order: false,
            shape: tensor.shape().into(),
        }
    }

    /// Returns the size of all elements in bytes, or `None` on overflow.
    pub(super) fn length(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size()?, |n, dim| n.checked_mul(*dim))
    }

    /// Reads a header up to the first element.
    pub(super) fn read(reader: &mut impl Read) -> Result<Header, Problem> {
        let mut take = |length: usize| {
            let mut bytes = vec![0; length];
            reader.read_exact(&mut bytes).map(|()| bytes).map_err(|_| "ends within its header")
        };
        let start = take(8)?;
        if &start[..6] != MAGIC {
            return Err("is not an array as numpy.save writes it".into());
        }
        let length = match start[6] {
            1 => u16::from_le_bytes(take(2)?.try_into().expect("two bytes")) as usize,
            2 | 3 => u32::from_le_bytes(take(4)?.try_into().expect("four bytes")) as usize,
            version => {
                return Err(format!("has format version {version}; 1 to 3 are supported").into());
            }
        };
        if length > MAX_TEXT {
            return Err("is of a record type; save each field as an array of its own".into());
        }
        let text = String::from_utf8(take(length)?).map_err(|_| "has a header that is not text")?;
        Header::parse(&text)
    }

    fn parse(text: &str) -> Result<Header, Problem> {
        let malformed =
            || -> Problem { format!("has a malformed header: {}", text.trim_end()).into() };
        let quoted = |text: &str| -> Option<String> {
            let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
            Some(text[1..].split_once(quote)?.0.to_owned())
        };

        let description = value_of(text, "descr").ok_or_else(malformed)?;
        if description.starts_with('[') {
            return Err("is of a record type; save each field as an array of its own".into());
        }
        let description = quoted(description).ok_or_else(malformed)?;
        let fortran_order = value_of(text, "fortran_order").ok_or_else(malformed)?;
        let fortran_order = match fortran_order {
            value if value.starts_with("False") => false,
            value if value.starts_with("True") => true,
            _ => return Err(malformed()),
        };
        let shape = value_of(text, "shape")
            .and_then(|value| value.strip_prefix('(')?.split_once(')'))
            .ok_or_else(malformed)?
            .0;
        let shape = shape.trim().trim_end_matches(',').trim();
        let shape = match shape {
            "" => Ok(vec![]),
            dims => dims.split(',').map(|dim| dim.trim().trim_end_matches('L').parse()).collect(),
        };
        let shape: Vec<usize> = shape.map_err(|_| malformed())?;

        let mut characters = description.chars();
        let order = characters.next();
        let dtype = match characters.as_str() {
            "b1" => DType::Bool,
            "i1" => DType::I8,
            "u1" => DType::U8,
            "i2" => DType::I16,
            "u2" => DType::U16,
            "i4" => DType::I32,
            "u4" => DType::U32,
            "i8" => DType::I64,
            "u8" => DType::U64,
            "f2" => DType::F16,
            "f4" => DType::F32,
            "f8" => DType::F64,
            _ => {
                return Err(Problem::Elements(format!(
                    "has elements of NumPy type {description:?}; only booleans, integers and \
                     floats of up to 64 bits are supported, so convert it with .astype"
                )));
            }
        };
        Ok(Header { dtype, big_endian: order == Some('>'), fortran_order, shape })
    }

    /// Formats the header in format version 1.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let kind = match self.dtype {
            DType::Bool => "|b1",
            DType::I8 => "|i1",
            DType::U8 => "|u1",
            DType::I16 => "<i2",
            DType::U16 => "<u2",
            DType::I32 => "<i4",
            DType::U32 => "<u4",
            DType::I64 => "<i8",
            DType::U64 => "<u8",
            DType::F16 => "<f2",
            DType::F64 => "<f8",
            DType::F32 | DType::BF16 | DType::Dim => "<f4",
        };
        let dims: String = self.shape.iter().map(|dim| format!("{dim}, ")).collect();
        let shape =
            if self.shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
        let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
        let total = (10 + text.len() + 1).next_multiple_of(ALIGNMENT);
        let padded = total - 10;
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((padded as u16).to_le_bytes());
        bytes.extend(format!("{text:<width$}\n", width = padded - 1).bytes());
        bytes
    }
}

/// Returns the text after a key and its colon.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = [format!("'{key}'"), format!("\"{key}\"")].iter().find_map(|key| {
        let start = text.find(key.as_str())?;
        Some(start + key.len())
    })?;
    Some(text[at..].trim_start().strip_prefix(':')?.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_match_numpy() {
        for (shape, written) in [(vec![], "()"), (vec![3], "(3,)"), (vec![2, 1, 4], "(2, 1, 4)")] {
            let header =
                Header { dtype: DType::F32, big_endian: false, fortran_order: false, shape };
            let bytes = header.to_bytes();
            let text = String::from_utf8(bytes[10..].to_vec()).unwrap();
            assert!(text.contains(&format!("'shape': {written}, }}")), "{text}");
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            assert_eq!(Header::read(&mut &bytes[..]), Ok(header));
        }
    }

    #[test]
    fn unsupported_headers_are_rejected() {
        for (text, problem) in [
            ("{'descr': '<U5', 'fortran_order': False, 'shape': (1,)}", "convert it with .astype"),
            ("{'descr': '<c8', 'fortran_order': False, 'shape': ()}", "convert it with .astype"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': ()}", "convert it with .astype"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}", "record type"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "malformed header"),
            ("{'descr': '<f4', 'shape': (1,)}", "malformed header"),
            ("((((((", "malformed header"),
        ] {
            let error = Header::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
