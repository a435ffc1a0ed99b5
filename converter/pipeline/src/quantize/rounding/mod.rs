//! Chooses the integers of weights: GPTQ, bit allocation, palettization and sparsity.

pub(crate) mod bit_allocation;
pub(crate) mod gptq;
mod palette;
mod sparsity;
