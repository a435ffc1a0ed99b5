//! What several subcommands use.

pub mod bundles;
pub mod compare;
pub mod foreign;
pub mod frontier;
pub mod gates;
pub mod labeled;
pub mod plan;
pub mod profile;
pub mod progress;
pub mod staged_output;
pub mod summary;
pub mod supervise;
