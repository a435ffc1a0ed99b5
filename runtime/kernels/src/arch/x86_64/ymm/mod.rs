//! Vectors of 8 sums: AVX2, with or without instructions for sums of products of bytes.

mod conv;
mod depthwise;
mod dot;
mod finish;

/// All pixels of a block in tiles of so many; of so many vectors of columns, whose sums may become
/// reals.
macro_rules! tiles {
    ($block:ident, $vectors:literal, $real:literal, [$($pixels:literal)*]) => {{
        let mut first = 0;
        $(while $block.pixels - first >= $pixels {
            // SAFETY: the processor and the block; the pixels from `first` on are enough.
            unsafe { tile::<$vectors, $pixels, $real>($block, first) };
            first += $pixels;
        })*
    }};
}

/// The table for an instruction set, as a module. A tile of a convolution has so many pixels, where
/// it has 16 columns, and so many where it has 8.
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
            /// The processor.
            #[target_feature(enable = $feature)]
            unsafe fn peak(rounds: usize) -> u64 {
                // SAFETY: the processor.
                unsafe { dot::peak::<Dot>(rounds) }
            }

            /// # Safety
            /// As [`conv::tile`].
            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn tile<const V: usize, const P: usize, const REAL: bool>(
                block: &ConvBlock,
                first: usize,
            ) {
                // SAFETY: the processor and the block, whose pixels these are.
                unsafe { conv::tile::<Dot, V, P, REAL>(block, first) }
            }

            /// # Safety
            /// The processor and the block, of the layout `X86Ymm`.
            unsafe fn conv(block: &ConvBlock) {
                if block.channels > conv::WIDTH / 2 {
                    tiles!(block, 2, false, $pixels);
                } else {
                    tiles!(block, 1, false, $pixels_of_8);
                }
            }

            /// # Safety
            /// The processor and the block, of the layout `X86Ymm`, with `rows`.
            unsafe fn product(block: &ConvBlock) {
                tiles!(block, 2, true, $pixels);
            }

            /// # Safety
            /// The processor and the rows.
            #[target_feature(enable = $feature)]
            unsafe fn half<const HALF: usize>(block: &DepthwiseRows) {
                // SAFETY: the processor and the rows; kernel and distance are those matched.
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
            /// The processor and the rows.
            unsafe fn depthwise(block: &DepthwiseRows) {
                // SAFETY: the processor and the rows.
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
