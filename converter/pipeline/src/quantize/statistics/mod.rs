//! Statistics of activations over calibration data.

pub(super) mod histogram;
pub(super) mod second_order;
