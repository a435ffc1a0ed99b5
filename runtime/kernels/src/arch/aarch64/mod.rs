//! Kernels for AArch64: plain NEON, NEON with dot products, and NEON with INT8 matrix
//! multiplication.

mod matrix;
mod neon;

use self::neon::{Neon, Sdot, Widening};
use super::vec128::{conv, kernels};

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
