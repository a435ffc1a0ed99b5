//! NumPy array files: `.npy`, and `.npz`, a ZIP archive of `.npy` files.
//!
//! The element types of [`hardtack::Tensor`] are supported, in either byte order, and in C or
//! Fortran order. Text, complex numbers, records and Python objects are not. Sizes in headers are
//! not trusted: memory is allocated only for bytes that are actually read.

mod archive;
mod cast;
mod header;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use hardtack::{Data, Tensor};
use header::{Header, Problem};
use thiserror::Error;
use zip::write::SimpleFileOptions;

use crate::atomic_file::{AtomicFile, WriteError};

pub use archive::{Archive, Description};
pub use cast::{CastError, cast};

/// The error type of array files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file is not a ZIP archive.
    #[error("{}: is not an .npz archive ({problem}); write it with numpy.savez", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The message of the ZIP reader.
        problem: String,
    },
    /// An array is malformed, or has an unsupported element type.
    #[error("{}: array {name:?} {problem}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// The name of the array; for a `.npy` file, the file name without extension.
        name: String,
        /// A description of the problem and, if there is one, its remedy.
        problem: String,
    },
}

/// Reads the array of a `.npy` file.
///
/// # Errors
/// Returns [`Error::Read`] or [`Error::Array`].
pub fn read_npy(path: &Path) -> Result<Tensor, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into());
    read(BufReader::new(file)).map_err(|problem| Error::Array {
        path: path.into(),
        name,
        problem: problem.to_string(),
    })
}

/// Reads all arrays of a `.npz` file with their names, in the order of the archive. Arrays with
/// unsupported element types, such as text, are skipped. For untrusted files, use [`Archive`] to
/// read only the arrays that are needed.
///
/// # Errors
/// Returns [`Error::Read`], [`Error::Archive`] or [`Error::Array`].
///
/// # Examples
///
/// ```
/// use hardtack_converter::arrays::read_npz;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # std::env::set_current_dir(data)?;
/// let arrays = read_npz("calibration.npz".as_ref())?;
/// for (name, tensor) in &arrays {
///     println!("{name}: {}{:?}", tensor.dtype(), tensor.shape()); // x: i8[100, 49, 10, 1]
/// }
/// assert_eq!(arrays[0].1.shape(), [100, 49, 10, 1]);
/// # Ok(())
/// # }
/// ```
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    Archive::open(path)?.all()
}

/// Writes named arrays to a compressed `.npz` file. The write is atomic, and the output is
/// deterministic. bfloat16, which NumPy lacks, is written as f32.
///
/// # Errors
/// Returns [`Error::Write`].
///
/// # Examples
///
/// ```
/// use hardtack::Tensor;
/// use hardtack_converter::arrays::{read_npz, write_npz};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # std::env::set_current_dir(&folder)?;
/// let x = Tensor::new(&[2, 3], vec![0.5f32; 6]).unwrap();
/// let y = Tensor::new(&[2], vec![4i64, 7]).unwrap();
/// write_npz("samples.npz".as_ref(), [("x", &x), ("y", &y)])?;
/// assert_eq!(read_npz("samples.npz".as_ref())?, [("x".to_owned(), x), ("y".to_owned(), y)]);
/// # Ok(())
/// # }
/// ```
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), Error> {
    let mut file = AtomicFile::new(path)?;
    write_npz_to(&mut file, arrays)
        .map_err(|source| WriteError::Write { path: path.into(), source })?;
    Ok(file.put()?)
}

/// Writes arrays in the format of [`write_npz`] to a writer.
///
/// # Errors
/// Returns the I/O errors of the writer.
///
/// # Examples
///
/// ```
/// use std::io::Cursor;
///
/// use hardtack::Tensor;
/// use hardtack_converter::arrays::write_npz_to;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let x = Tensor::new(&[1000], vec![0.5f32; 1000]).unwrap();
/// let mut bytes = Vec::new();
/// write_npz_to(Cursor::new(&mut bytes), [("x", &x)])?;
/// assert!(bytes.starts_with(b"PK") && bytes.len() < 1000);
/// # Ok(())
/// # }
/// ```
pub fn write_npz_to<'a>(
    writer: impl Write + Seek,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> io::Result<()> {
    let mut archive = zip::ZipWriter::new(writer);
    for (name, tensor) in arrays {
        let options = SimpleFileOptions::default()
            .last_modified_time(zip::DateTime::default())
            .large_file(tensor.len() >= 1 << 28);
        archive.start_file(format!("{name}.npy"), options)?;
        write_array(&mut archive, tensor)?;
    }
    archive.finish()?.flush()
}

/// Reads an array with its header.
fn read(mut reader: impl Read) -> Result<Tensor, Problem> {
    let header = Header::read(&mut reader)?;
    read_array(reader, header, usize::MAX)
}

/// Reads the elements that follow a header, at most the first `rows` along the first dimension.
fn read_array(reader: impl Read, header: Header, rows: usize) -> Result<Tensor, Problem> {
    let Header { dtype, big_endian, fortran_order, mut shape } = header;
    let size = dtype.size().unwrap_or(1);
    let length = |shape: &[usize]| {
        let length = shape.iter().try_fold(size, |n, dim| n.checked_mul(*dim));
        length.ok_or("is larger than the address space")
    };
    let cut: Vec<usize> = match &shape[..] {
        [first, rest @ ..] => [&[rows.min(*first)], rest].concat(),
        [] => Vec::new(),
    };
    if !fortran_order {
        shape.clone_from(&cut);
    }
    let length_read = length(&shape)?;
    let mut bytes = Vec::new();
    reader
        .take(length_read as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() != length_read {
        return Err(format!("ends after {} of its {length_read} bytes", bytes.len()).into());
    }
    if big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    if fortran_order {
        bytes = row_major(&bytes, size, &shape);
        bytes.truncate(length(&cut)?);
    }
    Tensor::from_bytes(dtype, &cut, &bytes)
        .ok_or_else(|| "has a number of elements that does not match its shape".into())
}

fn write_array(writer: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    let widened;
    let tensor = match tensor.data() {
        Data::BF16(_) => {
            let values = Data::F32(tensor.to_f32());
            widened = Tensor::new(tensor.shape(), values).expect("as many elements as before");
            &widened
        }
        _ => tensor,
    };
    writer.write_all(&Header::of(tensor).to_bytes())?;
    writer.write_all(&tensor.to_bytes())
}

/// Reorders elements of `size` bytes from Fortran order to C order.
fn row_major(bytes: &[u8], size: usize, shape: &[usize]) -> Vec<u8> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1usize;
    for (axis, dim) in shape.iter().enumerate() {
        strides[axis] = stride;
        // An array without elements may have dimensions of any size.
        stride = stride.wrapping_mul(*dim);
    }
    let mut position = vec![0; shape.len()];
    let mut out = Vec::with_capacity(bytes.len());
    for _ in 0..bytes.len() / size {
        let from: usize = position.iter().zip(&strides).map(|(p, s)| p * s).sum();
        out.extend_from_slice(&bytes[from * size..(from + 1) * size]);
        for axis in (0..shape.len()).rev() {
            position[axis] += 1;
            if position[axis] < shape[axis] {
                break;
            }
            position[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the output of `numpy.save` for `numpy.asfortranarray([[1, 2, 3], [4, 5, 6]],
    /// '>i2')`.
    fn fortran_big_endian() -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let text = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }";
        bytes.extend(format!("{text:<117}\n").bytes());
        bytes.extend([1i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_be_bytes()));
        bytes
    }

    #[test]
    fn big_endian_fortran_order_is_converted() {
        let tensor = read(&fortran_big_endian()[..]).unwrap();
        assert_eq!(tensor, Tensor::new(&[2, 3], vec![1i16, 2, 3, 4, 5, 6]).unwrap());
    }

    #[test]
    fn archives_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrays.npz");
        let arrays = [
            ("x/y", Tensor::new(&[2, 0], Vec::<f32>::new()).unwrap()),
            ("flag", Tensor::scalar(true)),
            ("half", Tensor::new(&[2], vec![half::f16::ONE, half::f16::MAX]).unwrap()),
            ("ids", Tensor::new(&[1, 2], vec![-1i64, i64::MAX]).unwrap()),
        ];
        write_npz(&path, arrays.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        let back = read_npz(&path).unwrap();
        assert!(back.iter().map(|(n, t)| (n.as_str(), t)).eq(arrays.iter().map(|(n, t)| (*n, t))));
        let first = std::fs::read(&path).unwrap();
        write_npz(&path, arrays.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }

    #[test]
    fn bfloat16_is_written_as_f32() {
        let mut bytes = Vec::new();
        write_array(&mut bytes, &Tensor::scalar(half::bf16::from_f32(1.5))).unwrap();
        assert_eq!(read(&bytes[..]).unwrap(), Tensor::scalar(1.5f32));
    }

    #[test]
    fn errors_name_file_and_array() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.npy");
        let bytes = fortran_big_endian();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = read_npy(&path).unwrap_err().to_string();
        assert!(message.ends_with("short.npy: array \"short\" ends after 11 of its 12 bytes"));
        let message = read_npz(&path).unwrap_err().to_string();
        assert!(message.contains("is not an .npz archive"), "{message}");
    }

    proptest! {
        #[test]
        fn damaged_arrays_never_panic(mut at in 0usize..128, value: u8, cut in 0usize..140) {
            let mut bytes = fortran_big_endian();
            at %= bytes.len();
            bytes[at] = value;
            bytes.truncate(cut);
            let _ = read(&bytes[..]);
        }
    }
}
