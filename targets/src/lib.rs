//! Profiles of the boards that bundles can target. Each is a file in `boards`.
//!
//! A profile states the processor and memory of a board, and what a bundle for it needs: the
//! instruction set of the kernels, which determines the packing of weights, and the maximum memory
//! for activations.

mod board;
mod profile;
mod size;

pub use board::{Board, Runner};
pub use profile::{Error, read};
pub use size::bytes;

macro_rules! boards {
    ($($name:literal)*) => {
        /// The name and text of each built-in profile.
        const PROFILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../boards/", $name, ".toml")))),*];
    };
}

boards! {
    "aarch64-linux"
    "armv7-linux"
    "x86-64-linux"
    "rpi-zero-2w"
    "rpi3"
    "rpi4"
    "rpi5"
    "imx8mp"
    "rk3566"
    "rk3588"
    "jetson-nano"
    "jetson-orin-nano"
    "jetson-agx-orin"
    "android-arm64"
    "android-armv7"
    "ios"
    "wasm"
    "stm32f407"
    "stm32f746"
    "nucleo-l4r5zi"
    "nrf52840"
    "nrf5340"
    "mps2-an386"
    "mps2-an500"
    "mps2-an505"
    "mps3-an547"
}

/// Returns all built-in boards.
///
/// # Examples
///
/// List the microcontrollers:
///
/// ```
/// let boards = hardtack_targets::boards().filter(|board| board.is_microcontroller());
/// for board in boards {
///     println!("{}: {} KiB of RAM", board.name, board.ram >> 10);
/// #   assert!(board.flash.is_some());
/// }
/// ```
pub fn boards() -> impl Iterator<Item = Board> {
    PROFILES.iter().map(|(name, text)| {
        profile::parse(name, &format!("{name}.toml"), text).expect("a test parses every profile")
    })
}

/// Returns the built-in board with this name, or `None` if there is none.
///
/// # Examples
///
/// ```
/// use hardtack_kernels::packed::Packing;
/// use hardtack_targets::board;
///
/// let board = board("rpi4").unwrap();
/// assert_eq!(board.triple, "aarch64-unknown-linux-gnu");
/// assert_eq!(board.packing(), Some(Packing::NeonDot));
/// ```
pub fn board(name: &str) -> Option<Board> {
    boards().find(|board| board.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_profile_is_listed_and_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/boards");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let listed: BTreeSet<String> =
            PROFILES.iter().map(|(name, _)| format!("{name}.toml")).collect();
        assert_eq!(files, listed);
        for (name, text) in PROFILES {
            let file = format!("{name}.toml");
            if let Err(error) = profile::parse(name, &file, text) {
                panic!("{error}");
            }
        }
    }

    #[test]
    fn boards_are_found_by_name() {
        let board = board("rpi4").unwrap();
        assert_eq!(board.triple, "aarch64-unknown-linux-gnu");
        assert!(super::board("rpi").is_none());
    }
}
