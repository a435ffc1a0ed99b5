//! AArch64: NEON, which multiplies bytes alone, as sums of four products, or as matrices.

mod matrix;
mod neon;

use self::neon::{Neon, Sdot, Widening};
use super::quads::{conv, kernels};

kernels!(
    neoni8mm,
    NeonI8mm,
    "neon,dotprod,i8mm",
    Neon<Sdot>,
    matrix::tile::<P, REAL>,
    matrix::peak
);
kernels!(
    neondot,
    NeonDot,
    "neon,dotprod",
    Neon<Sdot>,
    conv::tile::<Neon<Sdot>, P, REAL>,
    neon::peak::<Sdot>
);
kernels!(
    plain,
    Neon,
    "neon",
    Neon<Widening>,
    conv::tile::<Neon<Widening>, P, REAL>,
    neon::peak::<Widening>
);
