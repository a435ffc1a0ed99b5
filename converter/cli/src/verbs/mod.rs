//! The subcommands, one module each.

pub mod bench;
pub mod bisect;
pub mod compress;
pub mod convert;
pub mod decompress;
pub mod diff;
pub mod eval;
pub mod inspect;
pub mod run;
pub mod targets;
pub mod verify;
