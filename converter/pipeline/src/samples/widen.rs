//! Widens the integers of sample arrays.

use hardtack::{Data, Tensor};
use hardtack_bundle::DType;

/// Converts an array of integers to the wider integers that the model expects: NumPy often keeps
/// token indices in fewer bits. Any other array stays as it is.
pub(super) fn widened(tensor: Tensor, dtype: DType) -> Tensor {
    fn all<'a, T: Copy + Into<W> + 'a, W>(values: &'a [T]) -> Vec<W> {
        values.iter().map(|value| (*value).into()).collect()
    }
    let data: Data = match (tensor.data(), dtype) {
        (Data::I8(values), DType::I64) => all::<_, i64>(values).into(),
        (Data::U8(values), DType::I64) => all::<_, i64>(values).into(),
        (Data::I16(values), DType::I64) => all::<_, i64>(values).into(),
        (Data::U16(values), DType::I64) => all::<_, i64>(values).into(),
        (Data::I32(values), DType::I64) => all::<_, i64>(values).into(),
        (Data::U32(values), DType::I64) => all::<_, i64>(values).into(),
        (Data::I8(values), DType::I32) => all::<_, i32>(values).into(),
        (Data::U8(values), DType::I32) => all::<_, i32>(values).into(),
        (Data::I16(values), DType::I32) => all::<_, i32>(values).into(),
        (Data::U16(values), DType::I32) => all::<_, i32>(values).into(),
        _ => return tensor,
    };
    Tensor::new(tensor.shape(), data).expect("the number of elements stays the same")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_that_fit_are_widened() {
        let given = Tensor::new(&[2], vec![-7i16, 300]).unwrap();
        let wide = widened(given.clone(), DType::I64);
        assert_eq!(wide, Tensor::new(&[2], vec![-7i64, 300]).unwrap());
        assert_eq!(widened(given.clone(), DType::U8), given);
        assert_eq!(widened(given.clone(), DType::F32), given);
    }
}
