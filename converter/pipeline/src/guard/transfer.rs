//! The file format that returns an import result to the parent. It is validated as untrusted input.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use hardtack::Tensor;
use hardtack::internal::{Constant, Model};
use hardtack_bundle::DType;
use hardtack_bundle::graph::{Dim, Graph};

use crate::import::{ImportError, Imported};

const IMPORTED: u8 = 1;
const REFUSED: u8 = 2;
const TENSOR: u8 = 1;
const DIMS: u8 = 2;

/// The maximum rank of a tensor.
const MAX_RANK: u64 = crate::import::limits::MAX_RANK as u64;

/// Writes an import result to a file.
pub(super) fn write(path: &Path, result: &Result<Imported, ImportError>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    match result {
        Ok(imported) => {
            file.write_all(&[IMPORTED])?;
            block(&mut file, &postcard::to_allocvec(&imported.source).map_err(io::Error::other)?)?;
            block(&mut file, &imported.model.graph.to_bytes().map_err(io::Error::other)?)?;
            for constant in &imported.model.constants {
                write_constant(&mut file, constant)?;
            }
        }
        Err(error) => {
            file.write_all(&[REFUSED])?;
            block(&mut file, &postcard::to_allocvec(error).map_err(io::Error::other)?)?;
        }
    }
    file.flush()
}

fn write_constant(file: &mut impl Write, constant: &Constant) -> io::Result<()> {
    match constant {
        Constant::Tensor(tensor) => {
            file.write_all(&[TENSOR, tensor.dtype().number()])?;
            shape(file, tensor.shape())?;
            block(file, &tensor.to_bytes())
        }
        Constant::Stored(stored) => {
            file.write_all(&[TENSOR, stored.dtype().number()])?;
            shape(file, stored.shape())?;
            block(file, stored.bytes())
        }
        Constant::Dims { shape: dims, values } => {
            file.write_all(&[DIMS])?;
            shape(file, dims)?;
            block(file, &postcard::to_allocvec(values).map_err(io::Error::other)?)
        }
    }
}

fn shape(file: &mut impl Write, dims: &[usize]) -> io::Result<()> {
    file.write_all(&(dims.len() as u64).to_le_bytes())?;
    dims.iter().try_for_each(|dim| file.write_all(&(*dim as u64).to_le_bytes()))
}

fn block(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    file.write_all(&(bytes.len() as u64).to_le_bytes())?;
    file.write_all(bytes)
}

/// Reads and validates an import result from a file.
pub(super) fn read(path: &Path) -> io::Result<Result<Imported, ImportError>> {
    let mut file = BufReader::new(File::open(path)?);
    match read_byte(&mut file)? {
        REFUSED => {
            let bytes = read_block(&mut file)?;
            Ok(Err(postcard::from_bytes(&bytes).map_err(io::Error::other)?))
        }
        IMPORTED => {
            let source = postcard::from_bytes(&read_block(&mut file)?).map_err(io::Error::other)?;
            let graph = Graph::from_bytes(&read_block(&mut file)?).map_err(io::Error::other)?;
            graph.check().map_err(io::Error::other)?;
            let mut constants = Vec::new();
            for stated in &graph.constants {
                let (constant, dtype, dims) = read_constant(&mut file)?;
                let fits = dims.iter().map(|dim| *dim as u64).eq(stated.shape.iter().copied());
                if dtype != stated.dtype || !fits {
                    return Err(malformed());
                }
                constants.push(constant);
            }
            if file.read(&mut [0])? != 0 {
                return Err(malformed());
            }
            let model = Model { graph, constants, programs: vec![] };
            Ok(Ok(Imported { model, source }))
        }
        _ => Err(malformed()),
    }
}

fn read_constant(file: &mut impl Read) -> io::Result<(Constant, DType, Vec<usize>)> {
    match read_byte(file)? {
        TENSOR => {
            let dtype = DType::from_number(read_byte(file)?).ok_or_else(malformed)?;
            let dims = read_shape(file)?;
            let tensor = Tensor::from_bytes(dtype, &dims, &read_block(file)?);
            let tensor = Arc::new(tensor.ok_or_else(malformed)?);
            Ok((Constant::Tensor(tensor), dtype, dims))
        }
        DIMS => {
            let dims = read_shape(file)?;
            let values: Vec<Dim> =
                postcard::from_bytes(&read_block(file)?).map_err(io::Error::other)?;
            let count = dims.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
            if count != Some(values.len()) {
                return Err(malformed());
            }
            Ok((Constant::Dims { shape: dims.clone(), values }, DType::Dim, dims))
        }
        _ => Err(malformed()),
    }
}

fn read_shape(file: &mut impl Read) -> io::Result<Vec<usize>> {
    let rank = read_length(file)?;
    if rank > MAX_RANK {
        return Err(malformed());
    }
    (0..rank).map(|_| usize::try_from(read_length(file)?).map_err(|_| malformed())).collect()
}

fn read_byte(file: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_length(file: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads a length and that many bytes. Memory grows only with the bytes actually read.
fn read_block(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = read_length(file)?;
    let mut bytes = Vec::new();
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(malformed()) }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the import process returned an invalid result")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{DefaultValue, SourceFile, UnsupportedOperator};
    use hardtack_bundle::graph;

    fn imported() -> Imported {
        let tensor = Tensor::new(&[2, 1], vec![1.5f32, -2.0]).unwrap();
        let constant = |dtype, shape: &[u64]| graph::Constant {
            dtype,
            stored: dtype,
            shape: shape.into(),
            offset: 0,
            length: 0,
        };
        let graph = Graph {
            symbols: vec!["batch".into()],
            constants: vec![constant(DType::F32, &[2, 1]), constant(DType::Dim, &[1])],
            ..Graph::default()
        };
        let dims = Constant::Dims { shape: vec![1], values: vec![Dim::symbol(0)] };
        let constants = vec![Constant::Tensor(Arc::new(tensor)), dims];
        let source = SourceFile {
            digest: [7; 32],
            bytes: 9,
            opset: 13,
            producer: "p 1".into(),
            nodes: 1,
            parameters: 2,
            rewritten: vec!["a".into()],
            evaluated: None,
            labels: vec![],
            defaults: vec![("x".into(), DefaultValue { shape: vec![1], bytes: vec![3] })],
        };
        Imported { model: Model { graph, constants, programs: vec![] }, source }
    }

    #[test]
    fn results_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        write(&path, &Ok(imported())).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), imported());

        let found = UnsupportedOperator {
            operator: "Loop".into(),
            nodes: vec!["n".into()],
            reason: String::new(),
        };
        let refused = ImportError::Unsupported(vec![found]);
        let sentence = refused.to_string();
        write(&path, &Err(refused)).unwrap();
        let back = read(&path).unwrap().unwrap_err();
        assert!(matches!(back, ImportError::Unsupported(_)) && back.to_string() == sentence);
    }

    #[test]
    fn invalid_results_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        write(&path, &Ok(imported())).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(read(&path).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            std::fs::write(&path, &changed).unwrap();
            let _ = read(&path);
        }
    }
}
