//! Reads single arrays from `.npz` and `.npy` files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use hardtack::Tensor;
use hardtack_bundle::DType;
use zip::ZipArchive;

use super::header::{Header, Problem};
use super::{Error, read_array};

/// An open `.npz` file, or a `.npy` file as an archive with one array.
///
/// Opening an archive reads only the names. [`describe`](Archive::describe) reads the header of one
/// array, and [`read`](Archive::read) its elements. Other arrays are never decompressed.
///
/// # Examples
///
/// Read the first ten samples of an array:
///
/// ```
/// use hardtack_converter::arrays::Archive;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # std::env::set_current_dir(data)?;
/// let mut archive = Archive::open("calibration.npz".as_ref())?;
/// assert!(archive.names().any(|name| name == "x"));
/// let description = archive.describe("x")?.unwrap();
/// println!("{} {:?}", description.dtype, description.shape);
/// let first = archive.read_rows("x", 10)?.unwrap();
/// assert_eq!(first.shape()[0], 10);
/// # Ok(())
/// # }
/// ```
pub struct Archive {
    path: PathBuf,
    names: Vec<String>,
    source: Source,
}

/// The element type and shape of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<usize>,
}

enum Source {
    Zip(ZipArchive<BufReader<File>>),
    /// A `.npy` file.
    Array,
}

impl Archive {
    /// Opens an `.npz` file.
    ///
    /// # Errors
    /// Returns [`Error::Read`] or [`Error::Archive`].
    pub fn open(path: &Path) -> Result<Archive, Error> {
        let mut zip = ZipArchive::new(BufReader::new(open(path)?)).map_err(broken(path))?;
        let mut names = Vec::new();
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(broken(path))?;
            let name = entry.name().map_err(broken(path))?;
            names.push(name.strip_suffix(".npy").unwrap_or(&name).to_owned());
        }
        Ok(Archive { path: path.into(), names, source: Source::Zip(zip) })
    }

    /// Opens a `.npy` file as an archive with one array of this name.
    pub fn of_array(path: &Path, name: &str) -> Archive {
        Archive { path: path.into(), names: vec![name.into()], source: Source::Array }
    }

    /// Returns the names of the arrays, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Returns whether an array has this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }

    /// Reads the header of an array. Returns `None` if no array has this name.
    ///
    /// # Errors
    /// See [`Archive::read`].
    pub fn describe(&mut self, name: &str) -> Result<Option<Description>, Error> {
        self.with(name, |reader, room| {
            let Header { dtype, shape, .. } = header(reader, room)?;
            Ok(Description { dtype, shape })
        })
    }

    /// Reads an array. Returns `None` if no array has this name.
    ///
    /// # Errors
    /// Returns [`Error::Read`], [`Error::Archive`] or [`Error::Array`].
    pub fn read(&mut self, name: &str) -> Result<Option<Tensor>, Error> {
        self.read_rows(name, usize::MAX)
    }

    /// Reads the first `count` entries along the first dimension of an array, or all if it has
    /// fewer. The rest is not read, unless the array is in Fortran order.
    ///
    /// # Errors
    /// See [`Archive::read`].
    pub fn read_rows(&mut self, name: &str, count: usize) -> Result<Option<Tensor>, Error> {
        self.with(name, |reader, room| elements(reader, room, count))
    }

    /// Reads all arrays with numeric elements.
    pub(super) fn all(mut self) -> Result<Vec<(String, Tensor)>, Error> {
        let mut arrays = Vec::new();
        for index in 0..self.names.len() {
            let found = self.at(index, |reader, room| elements(reader, room, usize::MAX));
            let name = self.names[index].clone();
            match found? {
                Ok(tensor) => arrays.push((name, tensor)),
                Err(Problem::Elements(problem)) => log::info!("array {name:?} {problem}; skipped"),
                Err(problem) => return Err(self.wrong(&name, &problem)),
            }
        }
        Ok(arrays)
    }

    fn with<T>(
        &mut self,
        name: &str,
        of: impl FnOnce(&mut dyn Read, Option<u64>) -> Result<T, Problem>,
    ) -> Result<Option<T>, Error> {
        let Some(index) = self.names.iter().position(|other| other == name) else {
            return Ok(None);
        };
        self.at(index, of)?.map(Some).map_err(|problem| self.wrong(name, &problem))
    }

    /// Calls `of` with a reader for an entry, and with the entry's size from the archive.
    fn at<T>(
        &mut self,
        index: usize,
        of: impl FnOnce(&mut dyn Read, Option<u64>) -> Result<T, Problem>,
    ) -> Result<Result<T, Problem>, Error> {
        match &mut self.source {
            Source::Zip(zip) => {
                let mut entry = zip.by_index(index).map_err(broken(&self.path))?;
                let room = entry.size();
                Ok(of(&mut entry, Some(room)))
            }
            Source::Array => Ok(of(&mut BufReader::new(open(&self.path)?), None)),
        }
    }

    fn wrong(&self, name: &str, problem: &Problem) -> Error {
        let (path, problem) = (self.path.clone(), problem.to_string());
        Error::Array { path, name: name.into(), problem }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Read { path: path.into(), source })
}

fn broken(path: &Path) -> impl Fn(zip::result::ZipError) -> Error {
    let path = path.to_path_buf();
    move |error| Error::Archive { path: path.clone(), problem: error.to_string() }
}

/// Reads the header of an array and compares its size with that of the archive entry, `room` bytes.
fn header(reader: &mut dyn Read, room: Option<u64>) -> Result<Header, Problem> {
    let mut counted = Counted { reader, count: 0 };
    let header = Header::read(&mut counted)?;
    let length = header.length().ok_or("is larger than the address space")? as u64;
    match room.map(|room| room.saturating_sub(counted.count)) {
        Some(room) if room < length => {
            Err(format!("ends after {room} of its {length} bytes").into())
        }
        Some(room) if room > length => {
            Err(format!("has {} bytes after its {length}", room - length).into())
        }
        _ => Ok(header),
    }
}

fn elements(reader: &mut dyn Read, room: Option<u64>, rows: usize) -> Result<Tensor, Problem> {
    let header = header(reader, room)?;
    let all = header.shape.first().is_none_or(|count| *count <= rows) || header.fortran_order;
    let tensor = read_array(&mut *reader, header, rows)?;
    // The archive reader compares the checksum when it reaches the end of the entry.
    if room.is_some() && all {
        let mut none = [0];
        reader.read(&mut none).map_err(|error| format!("cannot be read: {error}"))?;
    }
    Ok(tensor)
}

struct Counted<'r> {
    reader: &'r mut dyn Read,
    count: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(bytes)?;
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;

    use super::*;

    /// Writes an archive with these entries.
    fn archive(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = zip::ZipWriter::new(file.as_file());
        for (name, bytes) in entries {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn array(shape: &str, elements: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.bytes());
        bytes.extend(elements);
        bytes
    }

    #[test]
    fn only_requested_arrays_are_read() {
        // The other arrays are invalid.
        let lies = array("(9000000000,)", b"abc");
        let file = archive(&[
            ("lies", &lies),
            ("x", &array("(3, 2)", &[1, 2, 3, 4, 5, 6])),
            ("noise", b"nothing of an array"),
        ]);
        let mut opened = Archive::open(file.path()).unwrap();
        assert_eq!(opened.names().collect::<Vec<_>>(), ["lies", "x", "noise"]);
        let described = Description { dtype: DType::U8, shape: vec![3, 2] };
        assert_eq!(opened.describe("x").unwrap(), Some(described));
        let x = opened.read("x").unwrap().unwrap();
        assert_eq!(x, Tensor::new(&[3, 2], vec![1u8, 2, 3, 4, 5, 6]).unwrap());
        let rows = opened.read_rows("x", 2).unwrap().unwrap();
        assert_eq!(rows, Tensor::new(&[2, 2], vec![1u8, 2, 3, 4]).unwrap());
        assert_eq!(opened.read_rows("x", 7).unwrap().unwrap(), x);
        assert_eq!(opened.read("none").unwrap(), None);
        for (name, problem) in [
            ("lies", "\"lies\" ends after 3 of its 9000000000 bytes"),
            ("noise", "\"noise\" is not an array"),
        ] {
            for error in [opened.read(name).unwrap_err(), opened.describe(name).unwrap_err()] {
                assert!(error.to_string().contains(problem), "{error}");
            }
        }
        assert!(super::super::read_npz(file.path()).is_err());
    }

    #[test]
    fn entries_that_are_too_long_or_damaged_are_rejected() {
        let file = archive(&[("long", &array("(2,)", b"abc")), ("x", &array("(4,)", b"wxyz"))]);
        let error = Archive::open(file.path()).unwrap().read("long").unwrap_err().to_string();
        assert!(error.contains("has 1 bytes after its 2"), "{error}");
        // Flip one bit of an uncompressed entry.
        let mut zip = zip::ZipWriter::new(file.as_file());
        let stored =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("x.npy", stored).unwrap();
        zip.write_all(&array("(4,)", b"wxyz")).unwrap();
        zip.finish().unwrap();
        let mut bytes = std::fs::read(file.path()).unwrap();
        let at = bytes.windows(4).rposition(|four| four == b"wxyz").unwrap();
        bytes[at] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        let error = Archive::open(file.path()).unwrap().read("x").unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn an_npy_file_is_an_archive_with_one_array() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), array("(3,)", b"abc")).unwrap();
        let mut opened = Archive::of_array(file.path(), "x");
        assert_eq!(opened.describe("x").unwrap().unwrap().shape, [3]);
        let two = opened.read_rows("x", 2).unwrap().unwrap();
        assert_eq!(two, Tensor::new(&[2], vec![b'a', b'b']).unwrap());
        assert!(opened.has("x") && !opened.has("y"));
    }
}
