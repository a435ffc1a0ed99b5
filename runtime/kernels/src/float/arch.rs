//! The kernel table of each instruction set.

use super::elementwise::{self, Binary, Unary};
use super::pool::{self, PoolPlan};
use super::reduce::{self, RowFunction};
use super::{conv, depthwise};
use crate::Isa;

/// The float kernels of an instruction set that this CPU supports. [`Kernels::for_isa`] is the only
/// way to get a table.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The elements of a vector, for which weights are packed.
    pub(super) lanes: usize,
    /// Convolutions for blocks of one and of two vectors. Each requires the contract of
    /// [`conv::Block`].
    pub(super) conv: [unsafe fn(&conv::Block); 2],
    /// Requires the contract of [`depthwise::Rows`].
    pub(super) depthwise: unsafe fn(&depthwise::Rows),
    pub(super) unary: unsafe fn(Unary, &[f32], &mut [f32]),
    pub(super) binary: unsafe fn(Binary, &[f32], &[f32], &mut [f32]),
    pub(super) pool: unsafe fn(&PoolPlan, &[f32], usize, &mut [f32]),
    pub(super) rows: unsafe fn(RowFunction, usize, &[f32], &mut [f32]),
}

/// Compiles the kernels for an instruction set.
macro_rules! kernels {
    ($(#[$feature:meta])* $name:ident, $vector:ty, $one:literal, $two:literal) => {
        mod $name {
            use super::*;

            pub(super) static KERNELS: Kernels = Kernels {
                lanes: <$vector as crate::float::vector::Vector>::LANES,
                conv: [conv_one, conv_two],
                depthwise: depthwise_rows,
                unary,
                binary,
                pool: pool_row,
                rows,
            };

            /// # Safety
            /// Requires the CPU features and the contract of [`conv::Block`].
            $(#[$feature])*
            unsafe fn conv_one(block: &conv::Block) {
                // SAFETY: the caller's.
                unsafe { conv::conv::<$vector, 1, $one>(block) }
            }

            /// # Safety
            /// Requires the CPU features and the contract of [`conv::Block`].
            $(#[$feature])*
            unsafe fn conv_two(block: &conv::Block) {
                // SAFETY: the caller's.
                unsafe { conv::conv::<$vector, 2, $two>(block) }
            }

            /// # Safety
            /// Requires the CPU features and the contract of [`depthwise::Rows`].
            $(#[$feature])*
            unsafe fn depthwise_rows(rows: &depthwise::Rows) {
                // SAFETY: the caller's.
                unsafe { depthwise::depthwise::<$vector>(rows) }
            }

            $(#[$feature])*
            fn unary(unary: Unary, values: &[f32], results: &mut [f32]) {
                elementwise::unary(unary, values, results);
            }

            $(#[$feature])*
            fn binary(binary: Binary, a: &[f32], b: &[f32], results: &mut [f32]) {
                elementwise::binary(binary, a, b, results);
            }

            $(#[$feature])*
            fn pool_row(plan: &PoolPlan, input: &[f32], row: usize, output: &mut [f32]) {
                pool::row(plan, input, row, output);
            }

            $(#[$feature])*
            fn rows(function: RowFunction, length: usize, input: &[f32], output: &mut [f32]) {
                reduce::compute(function, length, input, output);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx512f,fma,avx2")]
    zmm,
    super::super::vector::x86::Zmm,
    12,
    12
);
#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx2,fma")]
    ymm,
    super::super::vector::x86::Ymm,
    8,
    6
);
#[cfg(target_arch = "aarch64")]
kernels!(
    #[target_feature(enable = "neon")]
    neon,
    super::super::vector::neon::Quad,
    12,
    12
);
kernels!(scalar, super::super::vector::Scalar, 4, 4);

impl Kernels {
    /// Returns the kernels for `isa`, or `None` if this CPU does not support it. The kernels for
    /// [`Isa::Scalar`] exist everywhere.
    pub fn for_isa(isa: Isa) -> Option<&'static Self> {
        if !isa.is_supported() {
            return None;
        }
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Some(&zmm::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni | Isa::Avx512Vl | Isa::Avx2 => Some(&ymm::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm | Isa::NeonDot | Isa::Neon => Some(&neon::KERNELS),
            Isa::Scalar => Some(&scalar::KERNELS),
            _ => None,
        }
    }

    /// Returns the elements of a vector, for which weights are packed.
    pub fn lanes(&self) -> usize {
        self.lanes
    }
}
