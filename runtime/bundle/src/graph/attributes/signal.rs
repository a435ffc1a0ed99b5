//! Attributes of Fourier transforms.

use serde::{Deserialize, Serialize};

/// Attributes of [`Operator::Fft`](crate::graph::Operator::Fft).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fft {
    /// The axis.
    pub axis: u32,
    /// Whether to compute the inverse transform.
    pub inverse: bool,
}

/// Attributes of [`Operator::Stft`](crate::graph::Operator::Stft).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stft {
    /// The axis.
    pub axis: u32,
    /// The frame length in samples.
    pub frame: u64,
    /// The distance between the starts of two frames, in samples.
    pub stride: u64,
    /// The window, a constant given by its index in
    /// [`Graph::constants`](crate::graph::Graph::constants).
    pub window: Option<u32>,
}
