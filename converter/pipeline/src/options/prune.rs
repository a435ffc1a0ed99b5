//! The options of channel pruning.

use std::fmt;

/// The target of pruning: the fraction to remove, from 0 to 1.
///
/// # Examples
///
/// Remove half of the MACs of a model:
///
/// ```
/// use hardtack_converter::{ConvertOptions, PruneTarget};
///
/// let options = ConvertOptions {
///     prune_channels: Some(PruneTarget::Macs(0.5)),
///     calibration: Some("calibration.npz".into()),
///     ..ConvertOptions::default()
/// };
/// assert_eq!(options.prune_channels.unwrap().to_string(), "macs=50%");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PruneTarget {
    /// The fraction of the layers' MACs.
    Macs(f64),
    /// The fraction of the layers' weight bytes, as f32.
    Bytes(f64),
    /// The fraction of the inference time on this machine, in INT8 if the conversion quantizes.
    Latency(f64),
}

impl fmt::Display for PruneTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, part) = match self {
            PruneTarget::Macs(part) => ("macs", part),
            PruneTarget::Bytes(part) => ("bytes", part),
            PruneTarget::Latency(part) => ("latency", part),
        };
        write!(f, "{what}={}%", 100.0 * part)
    }
}
