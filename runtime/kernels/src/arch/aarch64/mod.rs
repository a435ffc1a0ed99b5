//! AArch64: NEON, with or without the instruction for sums of products of bytes.

mod conv;
mod depthwise;
mod dot;
mod finish;

/// The table for an instruction set, as a module.
macro_rules! kernels {
    ($module:ident, $isa:ident, $feature:literal, $dot:ident) => {
        pub(crate) mod $module {
            use super::depthwise::All;
            use super::dot::$dot as Dot;
            use super::{conv, dot};
            use crate::Isa;
            use crate::arch::depthwise::{general, rolling};
            use crate::packed::Packing;
            use crate::strided::{ConvBlock, DepthwiseRows, Kernels, portable};

            portable::portable!(vectors, $feature, 0);

            pub(crate) static KERNELS: Kernels = Kernels {
                isa: Isa::$isa,
                packing: Packing::NeonDot,
                conv,
                depthwise,
                peak,
                add: vectors::add,
                multiply: vectors::multiply,
                rescale: vectors::rescale,
                lookup: portable::lookup,
                quantize: vectors::quantize,
                interleave: portable::interleave,
                max_pool: vectors::max_pool,
                average_pool: vectors::average_pool,
                resize: vectors::resize,
                softmax: vectors::softmax,
            };

            #[target_feature(enable = $feature)]
            unsafe fn peak(rounds: usize) -> u64 {
                // SAFETY: the processor has the instructions.
                unsafe { dot::peak::<Dot>(rounds) }
            }

            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn tile<const P: usize>(block: &ConvBlock, first: usize) {
                // SAFETY: passed on.
                unsafe { conv::tile::<Dot, P>(block, first) }
            }

            unsafe fn conv(block: &ConvBlock) {
                let mut first = 0;
                macro_rules! tiles {
                    ($pixels:literal) => {
                        while block.pixels - first >= $pixels {
                            // SAFETY: passed on; the tile's pixels are some of the block's.
                            unsafe { tile::<$pixels>(block, first) };
                            first += $pixels;
                        }
                    };
                }
                tiles!(4);
                tiles!(2);
                tiles!(1);
            }

            #[target_feature(enable = $feature)]
            unsafe fn depthwise(block: &DepthwiseRows) {
                // SAFETY: passed on.
                unsafe {
                    match (block.kernel, block.columns_between) {
                        ([3, 3], 1) => rolling::<All<Dot>, 3, 3, 1, 3>(block),
                        ([3, 3], 2) => rolling::<All<Dot>, 3, 3, 2, 2>(block),
                        ([5, 5], 1) => rolling::<All<Dot>, 5, 5, 1, 5>(block),
                        ([5, 5], 2) => rolling::<All<Dot>, 5, 5, 2, 3>(block),
                        _ => general::<All<Dot>>(block),
                    }
                }
            }
        }
    };
}

kernels!(neondot, NeonDot, "neon,dotprod", Sdot);
kernels!(neon, Neon, "neon", Widening);
