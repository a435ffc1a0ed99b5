//! The description of a board.

use hardtack_kernels::Isa;
use hardtack_kernels::packed::Packing;

/// A board, or a family of similar boards.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// The name on the command line.
    pub name: String,
    /// The display name.
    pub title: String,
    /// The Rust target triple.
    pub triple: String,
    /// The name of the processor in compilers and emulators.
    pub cpu: String,
    /// The processor features that the target triple does not imply.
    pub features: Vec<String>,
    /// The best instruction set of the kernels that all variants of the board support.
    pub kernels: Isa,
    /// The number of cores for inference.
    pub cores: u32,
    /// The size of the memory in bytes, of the smallest variant.
    pub ram: u64,
    /// The size in bytes of the flash that the processor executes from. Only microcontrollers have
    /// it.
    pub flash: Option<u64>,
    /// The maximum size of the arena (memory for activations) in bytes. `None` if there is no
    /// relevant limit.
    pub arena: Option<u64>,
    /// How programs are run on the board.
    pub runner: Runner,
    /// The command of an emulator, to which the path of the program is appended.
    pub emulator: Vec<String>,
    /// Other information for users.
    pub notes: String,
}

/// How programs are run on a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runner {
    /// On this machine.
    Local,
    /// Over ssh.
    Ssh,
    /// Over the Android Debug Bridge.
    Adb,
    /// As part of an app.
    App,
    /// From flash, written by a debug probe.
    Probe,
}

impl Board {
    /// Returns the packing of the weights in a bundle for this board. `None` is the family `mcu`.
    pub fn packing(&self) -> Option<Packing> {
        self.kernels.packing()
    }

    /// Returns whether the board is a microcontroller without an operating system.
    pub fn is_microcontroller(&self) -> bool {
        self.flash.is_some()
    }
}

impl Runner {
    /// Returns the name in a profile.
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
