//! The attributes of the operators, grouped by the kind of operator.

mod arrange;
mod control;
mod elementwise;
mod quantize;
mod reduce;
mod resample;
mod signal;
mod trees;
mod window;

pub use arrange::*;
pub use control::*;
pub use elementwise::*;
pub use quantize::*;
pub use reduce::*;
pub use resample::*;
pub use signal::*;
pub use trees::*;
pub use window::*;
