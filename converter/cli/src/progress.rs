//! How far long work is.

use std::time::Duration;

use hardtack_converter::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on a terminal's stderr.
pub struct Bar {
    bar: ProgressBar,
    stage: &'static str,
}

impl Bar {
    /// A new one; hidden where nobody should see it.
    pub fn new(hidden: bool) -> Bar {
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a template"),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        Bar { bar, stage: "" }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn stage(&mut self, name: &'static str) {
        self.stage = name;
        self.bar.set_message(name);
    }

    fn step(&mut self, done: usize, of: usize) {
        self.bar.set_message(format!("{}: {done} of {of}", self.stage));
    }
}
