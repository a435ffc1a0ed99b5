#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod activations;
pub mod arrays;
mod atomic_file;
mod contained_path;
mod convert;
mod emit;
mod error;
mod float_run;
mod fold;
mod graph;
pub mod guard;
pub mod import;
mod model_limits;
mod offloaded_model;
mod options;
mod parity;
mod process;
mod progress;
mod prune;
mod quantize;
mod report;
pub mod samples;
pub mod spec;
mod storage;
#[cfg(test)]
mod testing;

pub use atomic_file::{AtomicFile, WriteError, check_output, write_file};
pub use convert::convert;
pub use error::Error;
pub use graph::io::{Endpoint, Signature};
pub use options::prune::PruneTarget;
pub use options::quantize::{Equalize, Int16, QuantizeOptions, RangeMethod, Rounding, Sparsity};
pub use options::{ConvertOptions, FloatStorage, MatrixStorage};
pub use progress::{NoProgress, Progress};
pub use report::{
    FigureReport, FloatNode, GraphNode, GroupReport, HistogramReport, LayerReport, Price,
    PruneReport, RangeReport, Report, StageReport, WeightsReport,
};
