//! The memory that values take.

use tract_core::internal::*;
use tract_core::ops::matmul::pack::DynPackedExoticFact;
use tract_core::tract_linalg::mmm::PackedExoticFact;

/// The bytes that count for a dimension. It is a tree whose size its type does not show.
const DIM_BYTES: u64 = 4096;

/// Returns the bytes that count for an element of this type.
pub(super) fn element(dtype: DatumType) -> u64 {
    if dtype.is_tdim() { DIM_BYTES } else { dtype.size_of() as u64 }
}

/// Returns whether [`bytes`] is the size of a value, and not only a lower bound.
pub(super) fn is_known(fact: &TypedFact) -> bool {
    let matrix = fact.exotic_fact().is_none_or(|exotic| {
        if let Some(packed) = exotic.downcast_ref::<PackedExoticFact>() {
            packed.mn.as_i64().is_some()
        } else if let Some(packed) = exotic.downcast_ref::<DynPackedExoticFact>() {
            packed.k.as_i64().is_some() && packed.mn.as_i64().is_some()
        } else {
            true
        }
    });
    matrix && fact.shape.as_concrete().is_some()
}

/// Returns the size of a value in bytes, without the padding of packed matrices, or 0 if it is
/// unknown. Saturates.
pub(super) fn bytes(fact: &TypedFact) -> u64 {
    let size = |dim: &TDim| dim.as_i64().map_or(0, |dim| dim.max(0) as u64);
    // The shape of packed matrices is that of the batch.
    let matrix = match fact.exotic_fact() {
        Some(exotic) => {
            if let Some(packed) = exotic.downcast_ref::<PackedExoticFact>() {
                (packed.k as u64).saturating_mul(size(&packed.mn))
            } else if let Some(packed) = exotic.downcast_ref::<DynPackedExoticFact>() {
                size(&packed.k).saturating_mul(size(&packed.mn))
            } else {
                1
            }
        }
        None => 1,
    };
    let Some(shape) = fact.shape.as_concrete() else { return 0 };
    let element = matrix.saturating_mul(self::element(fact.datum_type));
    shape.iter().fold(element, |bytes, dim| bytes.saturating_mul(*dim as u64))
}
