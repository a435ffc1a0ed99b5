//! Attributes of Fourier transforms.

use serde::{Deserialize, Serialize};

/// Attributes of [`Operator::Fft`](crate::graph::Operator::Fft).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fft {
    /// The axis.
    pub axis: u32,
    /// Whether it is the inverse transform.
    pub inverse: bool,
}

/// Attributes of [`Operator::Stft`](crate::graph::Operator::Stft).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stft {
    /// The axis.
    pub axis: u32,
    /// Samples per frame.
    pub frame: u64,
    /// Samples between frames.
    pub stride: u64,
    /// Window, a constant by its index in [`Graph::constants`](crate::graph::Graph::constants).
    pub window: Option<u32>,
}
