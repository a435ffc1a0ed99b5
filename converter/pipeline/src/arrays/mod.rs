//! Arrays in files as NumPy writes them: `.npy`, and `.npz`, a ZIP archive of them.
//!
//! Numbers and truth values of any width that [`hardtack::Tensor`] has are read, in either byte
//! order and either order of dimensions. Text, complex numbers, records and Python objects are
//! not read. Sizes are believed only as far as the bytes really come.

mod header;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use hardtack::{Data, Tensor};
use thiserror::Error;
use zip::write::SimpleFileOptions;

use header::{Header, Problem};

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
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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
    read_array(&mut BufReader::new(file)).map_err(|problem| Error::Array {
        path: path.into(),
        name,
        problem: problem.to_string(),
    })
}

/// Reads the arrays of a `.npz` file with their names, in the order of the archive. Arrays
/// whose elements are no numbers, such as the names of classes, are left out.
///
/// # Errors
/// [`Error::Read`], [`Error::Archive`] and [`Error::Array`].
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let not_archive = |error: zip::result::ZipError| Error::Archive {
        path: path.into(),
        problem: error.to_string(),
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(not_archive)?;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(not_archive)?;
        let file_name = entry.name().map_err(not_archive)?.into_owned();
        let name = file_name.strip_suffix(".npy").unwrap_or(&file_name).to_owned();
        match read_array(&mut entry) {
            Ok(tensor) => arrays.push((name, tensor)),
            Err(Problem::Elements(problem)) => log::info!("array {name:?} {problem}; left out"),
            Err(problem) => {
                let (path, problem) = (path.into(), problem.to_string());
                return Err(Error::Array { path, name, problem });
            }
        }
    }
    Ok(arrays)
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
    let write = || -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
        let mut archive = zip::ZipWriter::new(BufWriter::new(&file));
        for (name, tensor) in arrays {
            let options = SimpleFileOptions::default()
                .last_modified_time(zip::DateTime::default())
                .large_file(tensor.len() >= 1 << 28);
            archive.start_file(format!("{name}.npy"), options)?;
            write_array(&mut archive, tensor)?;
        }
        archive.finish()?.flush()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| Error::Write { path: path.into(), source })
}

fn read_array(reader: &mut impl Read) -> Result<Tensor, Problem> {
    let header = Header::read(reader)?;
    let length = header.length().ok_or("is larger than memory can be")?;
    let mut bytes = Vec::new();
    reader
        .take(length as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() != length {
        return Err(format!("ends after {} of its {length} bytes", bytes.len()).into());
    }
    let size = header.dtype.size().unwrap_or(1);
    if header.big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    if header.fortran_order {
        bytes = row_major(&bytes, size, &header.shape);
    }
    Tensor::from_bytes(header.dtype, &header.shape, &bytes)
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
    let mut stride = 1;
    for (axis, dim) in shape.iter().enumerate() {
        strides[axis] = stride;
        stride *= dim;
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
        let tensor = read_array(&mut &fortran_big_endian()[..]).unwrap();
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
        assert_eq!(read_array(&mut &bytes[..]).unwrap(), Tensor::scalar(1.5f32));
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
            let _ = read_array(&mut &bytes[..]);
        }
    }
}
