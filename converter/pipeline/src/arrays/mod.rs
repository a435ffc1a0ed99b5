//! Arrays in files as NumPy writes them: `.npy`, and `.npz`, a ZIP archive of them.
//!
//! Numbers and truth values of any width that [`hardtack::Tensor`] has are read, in either byte
//! order and either order of dimensions. Text, complex numbers, records and Python objects are
//! not read. Sizes are believed only as far as the bytes really come.

mod archive;
mod header;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use hardtack::{Data, Tensor};
use thiserror::Error;
use zip::write::SimpleFileOptions;

pub use archive::{Archive, Description};

use header::{Header, Problem};

use crate::whole::{WholeFile, WriteError};

/// What is wrong with a file of arrays.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file is no archive of arrays.
    #[error("{}: is not an .npz archive ({problem}); write it with numpy.savez", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What the archive reader says.
        problem: String,
    },
    /// An array is not one, or not of numbers.
    #[error("{}: array {name:?} {problem}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Name of the array; in a `.npy` file, the file's.
        name: String,
        /// What is wrong with it and, where something helps, what does.
        problem: String,
    },
}

/// Reads the one array of a `.npy` file.
///
/// # Errors
/// [`Error::Read`] and [`Error::Array`].
pub fn read_npy(path: &Path) -> Result<Tensor, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into());
    read(BufReader::new(file)).map_err(|problem| Error::Array {
        path: path.into(),
        name,
        problem: problem.to_string(),
    })
}

/// Reads all arrays of a `.npz` file with their names, in the order of the archive. Arrays whose
/// elements are not numbers, such as class names, are left out. For untrusted files, use
/// [`Archive`] to read only the arrays that are needed.
///
/// # Errors
/// [`Error::Read`], [`Error::Archive`] and [`Error::Array`].
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    Archive::open(path)?.all()
}

/// Writes arrays with their names to a compressed `.npz` file. The file appears whole or not at
/// all, and equal arrays give equal bytes. bfloat16, which NumPy lacks, becomes f32.
///
/// # Errors
/// [`Error::Write`].
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), Error> {
    let mut file = WholeFile::new(path)?;
    write_npz_to(&mut file, arrays)
        .map_err(|source| WriteError::Write { path: path.into(), source })?;
    Ok(file.put()?)
}

/// Writes arrays in the format of [`write_npz`] to a writer.
///
/// # Errors
/// I/O errors of the writer.
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
        length.ok_or("is larger than memory can be")
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
        .ok_or_else(|| "holds another number of elements than its shape".into())
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

/// Elements of `size` bytes stored first dimension fastest, reordered to last dimension fastest.
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

    /// `numpy.save` of `numpy.asfortranarray([[1, 2, 3], [4, 5, 6]], '>i2')`.
    fn fortran_big_endian() -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let text = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }";
        bytes.extend(format!("{text:<117}\n").bytes());
        bytes.extend([1i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_be_bytes()));
        bytes
    }

    #[test]
    fn order_of_bytes_and_dimensions_is_ours_after_reading() {
        let tensor = read(&fortran_big_endian()[..]).unwrap();
        assert_eq!(tensor, Tensor::new(&[2, 3], vec![1i16, 2, 3, 4, 5, 6]).unwrap());
    }

    #[test]
    fn archives_come_back_as_written() {
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
    fn problems_name_file_and_array() {
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
        fn foreign_bytes_never_panic(mut at in 0usize..128, value: u8, cut in 0usize..140) {
            let mut bytes = fortran_big_endian();
            at %= bytes.len();
            bytes[at] = value;
            bytes.truncate(cut);
            let _ = read(&bytes[..]);
        }
    }
}
