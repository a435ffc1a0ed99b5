#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod arrays;
pub mod spec;

mod channels;
mod convert;
mod edit;
mod emit;
mod error;
mod fold;
pub mod guard;
pub mod import;
mod inside;
mod narrow;
mod observe;
mod options;
mod outline;
mod parity;
mod ports;
mod prune;
pub mod quantize;
mod report;
mod resting;
pub mod samples;
mod shape;
#[cfg(test)]
mod testing;
mod whole;
mod work;

pub use convert::convert;
pub use error::Error;
pub use options::{FloatStorage, MatrixStorage, Options};
pub use ports::Ports;
pub use prune::{GroupReport, PruneReport, PruneTarget};
pub use report::{
    FigureReport, FloatNode, GraphNode, LayerReport, Progress, RangeReport, Report, Silent, Spread,
    StageReport, WeightsReport,
};
pub use whole::{WholeFile, WriteError, check_output, write_file};
