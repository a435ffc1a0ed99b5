//! The boards that bundles are made for: one file each in `boards`, read and checked here.
//!
//! A profile says what a board is (processor, memory) and what follows for a bundle: which kernels
//! run there, so how weights are laid out, and how much memory activations may take.

mod board;
mod profile;
mod size;

pub use board::{Board, Runner};
pub use profile::{Error, read};
pub use size::bytes;

macro_rules! boards {
    ($($name:literal)*) => {
        /// Name and text of each profile that comes with this release.
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

/// Every board of this release.
pub fn boards() -> impl Iterator<Item = Board> {
    PROFILES.iter().map(|(name, text)| {
        profile::parse(name, &format!("{name}.toml"), text).expect("a test reads every profile")
    })
}

/// The board of this name.
pub fn board(name: &str) -> Option<Board> {
    boards().find(|board| board.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_profile_is_listed_and_makes_sense() {
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
