//! Bringing integer programs into a limited arena.

use hardtack::{Bytes, Packing, Program};
use hardtack_engine::{BuildError, Builder, Plan};

/// How often a lower limit is tried because halos and gaps take more than was left for them.
const ATTEMPTS: usize = 24;

/// Bytes of the arenas of programs on kernels that read weights in this layout.
pub fn bytes(programs: &[Program], packing: Option<Packing>) -> u64 {
    programs.iter().map(|program| one(program, packing)).sum()
}

fn one(program: &Program, packing: Option<Packing>) -> u64 {
    let program = program.parse().expect("its builder checked it");
    Plan::of(&program, packing).arena_bytes.into()
}

/// Makes strips of programs until their arenas together have at most `limit` bytes.
///
/// # Errors
/// The least that was found, where that is more.
pub fn limit(programs: &mut [Program], packing: Option<Packing>, limit: u64) -> Result<(), u64> {
    let all = bytes(programs, packing);
    if all <= limit {
        return Ok(());
    }
    let (mut least, mut fits) = (0u64, true);
    for program in &mut *programs {
        // Each gets its part of the limit.
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
            // Without halos, which only count where nothing else was found.
            Err(BuildError::ArenaLimit { least: bytes, .. }) => return Err(least.unwrap_or(bytes)),
            Err(_) => break,
        }
        goal -= goal / 32;
    }
    Err(least.unwrap_or(u64::MAX))
}
