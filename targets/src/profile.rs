//! Parsing of profiles. Errors state the line and the allowed values.

use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use hardtack_kernels::Isa;
use serde::Deserialize;
use toml::Spanned;

use crate::{Board, Runner, bytes};

/// The error type for reading a profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The path of the file.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The profile is invalid.
    #[error("{file}, line {line}: {problem}")]
    Profile {
        /// The path of the file.
        file: String,
        /// The line number, from 1.
        line: usize,
        /// The problem, and the allowed values.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    title: String,
    triple: Spanned<String>,
    cpu: String,
    #[serde(default)]
    features: Vec<String>,
    kernels: Spanned<String>,
    cores: Spanned<u32>,
    ram: Spanned<String>,
    flash: Option<Spanned<String>>,
    arena: Option<Spanned<String>>,
    runner: Spanned<String>,
    #[serde(default)]
    emulator: Vec<String>,
    #[serde(default)]
    notes: String,
}

/// The number of bytes of a profile that are read.
const MAX_PROFILE: u64 = 1 << 20;

/// Reads the profile of a board that is not built in. The name of the board is the file name
/// without its extension.
///
/// # Errors
/// Returns the first problem, with its line.
///
/// # Examples
///
/// ```
/// use hardtack_targets::{Runner, read};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/boards"))?;
/// let board = read("stm32f746.toml".as_ref())?;
/// assert_eq!(board.name, "stm32f746");
/// assert_eq!(board.runner, Runner::Probe);
/// println!("{} with an arena of {:?} bytes", board.title, board.arena);
/// # Ok(())
/// # }
/// ```
pub fn read(path: &Path) -> Result<Board, Error> {
    let file = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|opened| opened.take(MAX_PROFILE).read_to_string(&mut text))
        .map_err(|source| Error::Read { file: file.clone(), source })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &file, &text)
}

/// Parses the text of a profile.
pub(crate) fn parse(name: &str, file: &str, text: &str) -> Result<Board, Error> {
    let wrong = |span: Range<usize>, problem: String| {
        let before = text.get(..span.start).unwrap_or(text);
        let line = 1 + before.matches('\n').count();
        Error::Profile { file: file.into(), line, problem }
    };
    let profile: Profile = toml::from_str(text)
        .map_err(|error| wrong(error.span().unwrap_or(0..0), error.message().replace('\n', " ")))?;
    let one_of = |what: &Spanned<String>, known: &[&str]| {
        let problem = format!("{:?} is not one of {}", what.get_ref(), known.join(", "));
        wrong(what.span(), problem)
    };
    let size = |text: &Spanned<String>| {
        bytes(text.get_ref()).map_err(|problem| wrong(text.span(), problem))
    };
    let kernels = Isa::from_name(profile.kernels.get_ref()).ok_or_else(|| {
        let known: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        one_of(&profile.kernels, &known)
    })?;
    let runner = Runner::ALL.into_iter().find(|runner| runner.name() == profile.runner.get_ref());
    let runner = runner.ok_or_else(|| one_of(&profile.runner, &Runner::ALL.map(Runner::name)))?;
    if profile.triple.get_ref().split('-').count() < 2 {
        let problem = format!("{:?} is not a target triple", profile.triple.get_ref());
        return Err(wrong(profile.triple.span(), problem));
    }
    if *profile.cores.get_ref() == 0 {
        return Err(wrong(profile.cores.span(), "cores must be at least 1".into()));
    }
    let ram = size(&profile.ram)?;
    let arena = profile.arena.as_ref().map(size).transpose()?;
    if let (Some(arena), Some(text)) = (arena, &profile.arena)
        && arena > ram
    {
        return Err(wrong(text.span(), "arena must not be larger than ram".into()));
    }
    Ok(Board {
        name: name.into(),
        title: profile.title,
        triple: profile.triple.into_inner(),
        cpu: profile.cpu,
        features: profile.features,
        kernels,
        cores: profile.cores.into_inner(),
        ram,
        flash: profile.flash.as_ref().map(size).transpose()?,
        arena,
        runner,
        emulator: profile.emulator,
        notes: profile.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
title = \"A board\"
triple = \"thumbv7em-none-eabihf\"
cpu = \"cortex-m4\"
kernels = \"scalar\"
cores = 1
ram = \"192KiB\"
flash = \"1MiB\"
arena = \"128KiB\"
runner = \"probe\"
";

    fn problem(text: &str) -> String {
        parse("board", "board.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn sizes_have_units() {
        let board = parse("board", "board.toml", GOOD).unwrap();
        assert_eq!(
            (board.ram, board.flash, board.arena),
            (192 << 10, Some(1 << 20), Some(1 << 17))
        );
        assert!(board.is_microcontroller());
        assert_eq!(board.packing(), None);
    }

    #[test]
    fn errors_state_the_line_and_the_allowed_values() {
        let text = problem(&GOOD.replace("cores", "coers"));
        assert!(text.starts_with("board.toml, line 5: unknown field `coers`"), "{text}");
        assert!(text.contains("`cores`"), "{text}");
        let text = problem(&GOOD.replace("scalar", "sclar"));
        assert!(text.starts_with("board.toml, line 4: \"sclar\" is not one of"), "{text}");
        let text = problem(&GOOD.replace("192KiB", "192K"));
        assert!(text.starts_with("board.toml, line 6: \"192K\" is not a size"), "{text}");
        let text = problem(&GOOD.replace("probe", "prob"));
        assert!(text.contains("local, ssh, adb, app, probe"), "{text}");
        let text = problem(&GOOD.replace("128KiB", "1MiB"));
        assert!(text.starts_with("board.toml, line 8: "), "{text}");
        let text = problem(&GOOD.replace("cores = 1", "cores = 0"));
        assert!(text.starts_with("board.toml, line 5: "), "{text}");
        let text = problem(&GOOD.replace("cpu = \"cortex-m4\"\n", ""));
        assert!(text.contains("missing field `cpu`"), "{text}");
    }
}
