//! Kernels for 256-bit vectors of 8 accumulators: AVX2 with or without byte dot product
//! instructions.

mod conv;
mod depthwise;
mod dot;
mod epilogue;

/// Computes all pixels of a block with `$vectors` vectors of columns in the given tile sizes, from
/// largest to smallest. `$real` selects f32 outputs.
macro_rules! tiles {
    ($block:ident, $vectors:literal, $real:literal, [$($pixels:literal)*]) => {{
        let mut first = 0;
        $(while $block.pixels - first >= $pixels {
            // SAFETY: the caller guarantees the CPU features and the contract of `ConvBlock`, with
            // `rows` if `$real`. At least `$pixels` pixels are left from `first`.
            unsafe { tile::<$vectors, $pixels, $real>($block, first) };
            first += $pixels;
        })*
    }};
}

/// Defines the kernel table of an instruction set in a module. `$pixels` and `$pixels_of_8` are the
/// tile sizes of convolutions with 16 and with 8 columns.
macro_rules! kernels {
    ($module:ident, $isa:ident, $feature:literal, $dot:ident, $pixels:tt, $pixels_of_8:tt) => {
        pub(crate) mod $module {
            use super::depthwise::Half;
            use super::dot::$dot as Dot;
            use super::{conv, dot};
            use crate::Isa;
            use crate::arch::depthwise::{general, rolling};
            use crate::packed::Packing;
            use crate::strided::{ConvBlock, DepthwiseRows, Kernels, ProductKernels, portable};

            portable::portable!(vectors, [$feature], 0x80);

            pub(crate) static KERNELS: Kernels = Kernels {
                isa: Isa::$isa,
                packing: Packing::X86Ymm,
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

            pub(crate) const PRODUCTS: ProductKernels = ProductKernels {
                extent: vectors::extent,
                affine: vectors::affine,
                multiply: product,
            };

            /// # Safety
            /// The CPU must support `$feature`.
            #[target_feature(enable = $feature)]
            unsafe fn peak(rounds: usize) -> u64 {
                // SAFETY: the caller guarantees `$feature`.
                unsafe { dot::peak::<Dot>(rounds) }
            }

            /// # Safety
            /// See [`conv::tile`].
            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn tile<const V: usize, const P: usize, const REAL: bool>(
                block: &ConvBlock,
                first: usize,
            ) {
                // SAFETY: the caller guarantees `$feature` and the requirements of `conv::tile`.
                unsafe { conv::tile::<Dot, V, P, REAL>(block, first) }
            }

            /// # Safety
            /// The CPU features and the contract of [`ConvBlock`] for the layout `X86Ymm`, with
            /// `rows` null.
            unsafe fn conv(block: &ConvBlock) {
                if block.channels > conv::WIDTH / 2 {
                    tiles!(block, 2, false, $pixels);
                } else {
                    tiles!(block, 1, false, $pixels_of_8);
                }
            }

            /// # Safety
            /// The CPU features and the contract of [`ConvBlock`] for the layout `X86Ymm`, with
            /// `rows`.
            unsafe fn product(block: &ConvBlock) {
                tiles!(block, 2, true, $pixels);
            }

            /// # Safety
            /// The CPU features and the contract of [`DepthwiseRows`].
            #[target_feature(enable = $feature)]
            unsafe fn half<const HALF: usize>(block: &DepthwiseRows) {
                // SAFETY: the caller guarantees `$feature` and the contract of `DepthwiseRows`. The
                // kernel size and `columns_between` equal the const arguments of `rolling`.
                unsafe {
                    match (block.kernel, block.columns_between) {
                        ([3, 3], 1) => rolling::<Half<Dot, HALF>, 3, 3, 1, 3>(block),
                        ([3, 3], 2) => rolling::<Half<Dot, HALF>, 3, 3, 2, 2>(block),
                        ([5, 5], 1) => rolling::<Half<Dot, HALF>, 5, 5, 1, 5>(block),
                        ([5, 5], 2) => rolling::<Half<Dot, HALF>, 5, 5, 2, 3>(block),
                        _ => general::<Half<Dot, HALF>>(block),
                    }
                }
            }

            /// # Safety
            /// The CPU features and the contract of [`DepthwiseRows`].
            unsafe fn depthwise(block: &DepthwiseRows) {
                // SAFETY: the caller guarantees the CPU features and the contract of
                // `DepthwiseRows`.
                unsafe {
                    half::<0>(block);
                    if block.channels > 8 {
                        half::<1>(block);
                    }
                }
            }
        }
    };
}

kernels!(avxvnni, AvxVnni, "avx2,fma,avxvnni", AvxVnni, [6 4 2 1], [12 8 4 2 1]);
kernels!(avx512vl, Avx512Vl, "avx2,fma,avx512f,avx512vl,avx512vnni", Avx512Vl, [6 4 2 1], [12 8 4 2 1]);
kernels!(avx2, Avx2, "avx2,fma", Avx2, [4 2 1], [8 4 2 1]);
