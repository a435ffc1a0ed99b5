//! Stores float weights in 16 bits.

use hardtack::internal::{Constant, Model};
use hardtack::{Data, Tensor};

use crate::options::FloatStorage;

/// Constants of fewer elements stay f32: halving them saves too little.
const MIN_ELEMENTS: usize = 64;

/// Rounds the large f32 constants of a model to `storage`, except those that would overflow f16.
pub(crate) fn to_16_bits(mut model: Model, storage: FloatStorage) -> Model {
    if storage == FloatStorage::F32 {
        return model;
    }
    for (constant, record) in model.constants.iter_mut().zip(&mut model.graph.constants) {
        let Constant::Tensor(tensor) = constant else { continue };
        let Data::F32(values) = tensor.data() else { continue };
        if values.len() < MIN_ELEMENTS {
            continue;
        }
        let data: Data = match storage {
            FloatStorage::F16 => {
                let rounded_values: Vec<_> =
                    values.iter().map(|x| half::f16::from_f32(*x)).collect();
                if rounded_values.iter().zip(values).any(|(h, x)| h.is_infinite() && x.is_finite())
                {
                    continue;
                }
                rounded_values.into()
            }
            _ => values.iter().map(|x| half::bf16::from_f32(*x)).collect::<Vec<_>>().into(),
        };
        let rounded = Tensor::new(tensor.shape(), data).expect("as many elements as before");
        *constant = Constant::Tensor(rounded.into());
        record.stored = storage.dtype();
    }
    model
}
