//! Stores float weights in 16 bits.

use hardtack::{Constant, Data, Model, Tensor};

use crate::options::FloatStorage;

/// Constants of fewer elements stay f32: halving them saves too little.
const HALVED_FROM: usize = 64;

/// Rounds the large f32 constants of a model to `storage`, except those that would overflow f16.
pub(crate) fn halve(mut model: Model, storage: FloatStorage) -> Model {
    if storage == FloatStorage::F32 {
        return model;
    }
    for (constant, record) in model.constants.iter_mut().zip(&mut model.graph.constants) {
        let Constant::Tensor(tensor) = constant else { continue };
        let Data::F32(values) = tensor.data() else { continue };
        if values.len() < HALVED_FROM {
            continue;
        }
        let data: Data = match storage {
            FloatStorage::F16 => {
                let halves: Vec<_> = values.iter().map(|x| half::f16::from_f32(*x)).collect();
                if halves.iter().zip(values).any(|(h, x)| h.is_infinite() && x.is_finite()) {
                    continue;
                }
                halves.into()
            }
            _ => values.iter().map(|x| half::bf16::from_f32(*x)).collect::<Vec<_>>().into(),
        };
        let halved = Tensor::new(tensor.shape(), data).expect("as many elements as before");
        *constant = Constant::Tensor(halved.into());
        record.stored = storage.dtype();
    }
    model
}
