//! Progress of a conversion.

/// Receives progress updates during a conversion.
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
