//! Tensors spilled to a temporary file, so that only one sample at a time is in memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};

use hardtack::Tensor;
use hardtack_bundle::DType;

use super::SampleSource;
use crate::error::Error;

/// Pre-processed samples in a temporary file, which is removed when this process ends.
pub(crate) struct Spool {
    file: File,
    /// The location of each input of each sample.
    samples: Vec<Vec<Place>>,
    length: u64,
}

/// The location, type and shape of a tensor in the file.
struct Place {
    offset: u64,
    dtype: DType,
    shape: Vec<usize>,
}

impl Spool {
    /// Creates a spool without samples.
    ///
    /// # Errors
    /// Returns [`Error::Spool`] if the temporary file cannot be created.
    pub(crate) fn new() -> Result<Spool, Error> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Spool { file, samples: Vec::new(), length: 0 })
    }

    /// Appends a sample.
    ///
    /// # Errors
    /// Returns [`Error::Spool`] if the file cannot be written.
    pub(crate) fn push<'t>(
        &mut self,
        inputs: impl IntoIterator<Item = &'t Tensor>,
    ) -> Result<(), Error> {
        let mut places = Vec::new();
        let write = || -> io::Result<()> {
            self.file.seek(SeekFrom::Start(self.length))?;
            let mut file = BufWriter::new(&self.file);
            for tensor in inputs {
                let bytes = tensor.to_bytes();
                file.write_all(&bytes)?;
                let (dtype, shape) = (tensor.dtype(), tensor.shape().into());
                places.push(Place { offset: self.length, dtype, shape });
                self.length += bytes.len() as u64;
            }
            file.flush()
        };
        write().map_err(failed)?;
        self.samples.push(places);
        Ok(())
    }
}

impl SampleSource for Spool {
    fn count(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Error> {
        let read = |place: &Place| -> io::Result<Tensor> {
            let elements: usize = place.shape.iter().product();
            let mut bytes = vec![0; elements * place.dtype.size().unwrap_or(1)];
            let mut file = &self.file;
            file.seek(SeekFrom::Start(place.offset))?;
            file.read_exact(&mut bytes)?;
            Tensor::from_bytes(place.dtype, &place.shape, &bytes)
                .ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let inputs = self.samples[index].iter().map(read).collect::<io::Result<Vec<_>>>();
        inputs.map(Cow::Owned).map_err(failed)
    }
}

fn failed(source: io::Error) -> Error {
    Error::Spool { source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_round_trip_in_any_order() {
        let sample = |seed: usize| {
            let floats: Vec<f32> = (0..6).map(|i| (i * seed) as f32 - 0.5).collect();
            let integers = vec![seed as i64, -1];
            [Tensor::new(&[1, 2, 3], floats).unwrap(), Tensor::new(&[2], integers).unwrap()]
        };
        let mut spool = Spool::new().unwrap();
        (0..5).for_each(|seed| spool.push(&sample(seed)).unwrap());
        assert_eq!(spool.count(), 5);
        for seed in [3, 0, 4, 1, 2] {
            assert_eq!(spool.sample(seed).unwrap()[..], sample(seed));
        }
        // Samples can be appended after others were read.
        spool.push(&sample(9)).unwrap();
        assert_eq!(spool.sample(5).unwrap()[..], sample(9));
        assert_eq!(spool.sample(4).unwrap()[..], sample(4));
    }
}
