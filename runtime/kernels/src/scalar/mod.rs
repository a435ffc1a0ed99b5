//! The reference implementation: portable loops without unsafe code, which a compiler can
//! vectorize.

mod average_pool;
mod conv;
mod copy;
mod depthwise;
mod elementwise;
mod max_pool;
mod ports;
mod product;
mod resize;
mod softmax;
#[cfg(feature = "sparse")]
mod sparse;

pub use average_pool::average_pool;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
pub(crate) use conv::Place;
pub use conv::conv;
pub use copy::copy;
pub use elementwise::{add, lookup, multiply};
pub use max_pool::max_pool;
pub use ports::{dequantize, quantize};
pub use product::product;
pub use resize::resize;
pub(crate) use resize::{interpolate, weights};
pub(crate) use softmax::share;
pub use softmax::softmax;
#[cfg(feature = "sparse")]
pub use sparse::sparse;
#[cfg(all(target_arch = "arm", feature = "dsp", feature = "sparse"))]
pub(crate) use sparse::{Products, sparse_by};
