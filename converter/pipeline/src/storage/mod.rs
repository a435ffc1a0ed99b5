//! The storage types of weights that run in float: f16 and bf16, INT8 and 4 bits, and integers that
//! matmuls multiply directly (dynamic quantization).

mod blocks;
pub(crate) mod compact;
pub(crate) mod dynamic;
pub(crate) mod gather;
pub(crate) mod half_precision;
pub(crate) mod matrices;
