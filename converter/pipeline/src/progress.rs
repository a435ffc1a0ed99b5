//! Progress of a conversion.

/// Receives progress updates during a conversion.
///
/// # Examples
///
/// Collect the names of the stages:
///
/// ```
/// use hardtack_converter::{ConvertOptions, Progress, convert};
///
/// struct Stages(Vec<&'static str>);
///
/// impl Progress for Stages {
///     fn stage(&mut self, name: &'static str) {
///         self.0.push(name);
///     }
///
///     fn step(&mut self, done: usize, of: usize) {
///         println!("{done} of {of}");
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/keyword_spotting");
/// # let folder = tempfile::tempdir()?;
/// # for name in ["kws_dscnn.onnx", "calibration.npz"] {
/// #     std::fs::copy(format!("{data}/{name}"), folder.path().join(name))?;
/// # }
/// # std::env::set_current_dir(&folder)?;
/// let mut stages = Stages(Vec::new());
/// let (onnx, bundle) = ("kws_dscnn.onnx".as_ref(), "kws.tack".as_ref());
/// convert(onnx, bundle, &ConvertOptions::default(), &mut stages)?;
/// assert_eq!(stages.0[..3], ["import", "samples", "fold"]);
/// # Ok(())
/// # }
/// ```
pub trait Progress {
    /// Called when a stage begins.
    fn stage(&mut self, name: &'static str);
    /// Called when `done` of `of` parts of the stage are complete.
    fn step(&mut self, done: usize, of: usize);
}

/// Discards progress updates.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&mut self, _: &'static str) {}
    fn step(&mut self, _: usize, _: usize) {}
}
