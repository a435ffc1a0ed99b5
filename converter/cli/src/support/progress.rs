//! The progress bar of long operations.

use std::time::Duration;

use hardtack_converter::Progress;
use hardtack_converter::guard::{self, Reporter};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on stderr. A supervised process sends its progress to the supervisor, which draws
/// the bar.
pub struct Bar {
    shown: Shown,
    stage: String,
}

enum Shown {
    Here(ProgressBar),
    BySupervisor(Reporter),
}

impl Bar {
    /// Creates a progress bar, which draws nothing if `hidden`.
    pub fn new(hidden: bool) -> Bar {
        let shown = match guard::is_supervised() {
            true => Shown::BySupervisor(Reporter::default()),
            false => Shown::Here(drawn(hidden)),
        };
        Bar { shown, stage: String::new() }
    }

    /// Shows the name of a stage.
    pub fn show_stage(&mut self, name: &str) {
        self.stage = name.into();
        if let Shown::Here(bar) = &self.shown {
            bar.set_message(self.stage.clone());
        }
    }

    /// Shows how many of the stage's steps are done.
    pub fn show_step(&mut self, done: usize, of: usize) {
        if let Shown::Here(bar) = &self.shown {
            bar.set_message(format!("{}: {done} of {of}", self.stage));
        }
    }

    /// Hides the bar while `write` writes to the terminal.
    pub fn suspend(&self, write: impl FnOnce()) {
        match &self.shown {
            Shown::Here(bar) => bar.suspend(write),
            Shown::BySupervisor(_) => write(),
        }
    }
}

/// Creates the bar that is drawn on stderr.
fn drawn(hidden: bool) -> ProgressBar {
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is valid"),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Shown::Here(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn stage(&mut self, name: &'static str) {
        match &mut self.shown {
            Shown::Here(_) => self.show_stage(name),
            Shown::BySupervisor(reporter) => reporter.stage(name),
        }
    }

    fn step(&mut self, done: usize, of: usize) {
        match &mut self.shown {
            Shown::Here(_) => self.show_step(done, of),
            Shown::BySupervisor(reporter) => reporter.step(done, of),
        }
    }
}
