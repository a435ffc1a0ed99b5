//! What is known of a board.

use hardtack_kernels::Isa;
use hardtack_kernels::packed::Packing;

/// A board, or a family of boards that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// Its name on the command line.
    pub name: String,
    /// Its name among people.
    pub title: String,
    /// What the compiler calls it.
    pub triple: String,
    /// The processor, as compilers and emulators call it.
    pub cpu: String,
    /// Features of the processor that are not its triple's anyway.
    pub features: Vec<String>,
    /// The instruction set of the best kernels it surely runs.
    pub kernels: Isa,
    /// Cores that inference may use.
    pub cores: u32,
    /// Bytes of memory, of the smallest variant.
    pub ram: u64,
    /// Bytes of flash that the processor executes from, of microcontrollers.
    pub flash: Option<u64>,
    /// Most bytes that activations may take; `None`: no limit worth telling.
    pub arena: Option<u64>,
    /// How programs get there.
    pub runner: Runner,
    /// The command that runs its programs elsewhere, to which the program is added.
    pub emulator: Vec<String>,
    /// What else to know.
    pub notes: String,
}

/// How programs get onto a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runner {
    /// This machine.
    Local,
    /// Over the network.
    Ssh,
    /// Over Android's bridge.
    Adb,
    /// As a part of an app.
    App,
    /// By a debug probe, into flash.
    Probe,
}

impl Board {
    /// How the weights of a bundle for it are laid out; `None` is the family `mcu`.
    pub fn packing(&self) -> Option<Packing> {
        self.kernels.packing()
    }

    /// Whether it has no operating system.
    pub fn is_microcontroller(&self) -> bool {
        self.flash.is_some()
    }
}

impl Runner {
    /// Its name in a profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Adb => "adb",
            Self::App => "app",
            Self::Probe => "probe",
        }
    }

    pub(crate) const ALL: [Self; 5] = [Self::Local, Self::Ssh, Self::Adb, Self::App, Self::Probe];
}
