//! Fits integer programs into an arena of limited size.

use hardtack::Bytes;
use hardtack::internal::{Packing, Program};
use hardtack_engine::{BuildError, Builder, Plan};

/// The number of lowered limits to try when halos and gaps make a program exceed its share.
const ATTEMPTS: usize = 24;

/// Returns the total arena bytes of programs, for kernels with this weight packing.
pub(crate) fn bytes(programs: &[Program], packing: Option<Packing>) -> u64 {
    programs.iter().map(|program| one(program, packing)).sum()
}

fn one(program: &Program, packing: Option<Packing>) -> u64 {
    let program = program.parse().expect("its builder checked it");
    Plan::of(&program, packing).arena_bytes.into()
}

/// Splits programs into row tiles until their arenas take at most `limit` bytes together.
///
/// # Errors
/// Returns the smallest total found if it exceeds the limit.
pub(crate) fn limit(
    programs: &mut [Program],
    packing: Option<Packing>,
    limit: u64,
) -> Result<(), u64> {
    let all = bytes(programs, packing);
    if all <= limit {
        return Ok(());
    }
    let (mut least, mut fits) = (0u64, true);
    for program in &mut *programs {
        // The limit is divided in proportion to the current arena sizes.
        let share =
            (u128::from(limit) * u128::from(one(program, packing)) / u128::from(all)) as u64;
        match limited(program, packing, share) {
            Ok(smaller) => {
                least += one(&smaller, packing);
                *program = smaller;
            }
            Err(bytes) => {
                least = least.saturating_add(bytes);
                fits = false;
            }
        }
    }
    if fits { Ok(()) } else { Err(least) }
}

fn limited(program: &Program, packing: Option<Packing>, limit: u64) -> Result<Program, u64> {
    let whole = program.parse().expect("its builder checked it");
    let (mut goal, mut least) = (limit, None);
    for _ in 0..ATTEMPTS {
        let parts = Builder::of(&whole).expect("its weights are not packed");
        match parts.limit_arena(goal).finish() {
            Ok(built) => {
                let smaller = Program {
                    code: Bytes::from(built.code),
                    weights: Bytes::from(built.weights),
                    packing: None,
                };
                let bytes = one(&smaller, packing);
                if bytes <= limit {
                    return Ok(smaller);
                }
                least = Some(least.map_or(bytes, |least: u64| least.min(bytes)));
            }
            // This bound ignores halos, so it is reported only if no tiled program was built.
            Err(BuildError::ArenaLimit { least: bytes, .. }) => return Err(least.unwrap_or(bytes)),
            Err(_) => break,
        }
        goal -= goal / 32;
    }
    Err(least.unwrap_or(u64::MAX))
}
