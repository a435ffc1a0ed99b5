//! Kernels of vectors of 16 bytes, which several processor families have: the walks are the same,
//! the instructions are each family's own.

pub(super) mod conv;
pub(super) mod depthwise;

use crate::strided::Finish;

/// Vectors of 16 bytes: of 16 i8, of four i32, of four f32.
///
/// # Safety of its functions
/// All need the processor. Pointers need not be aligned.
pub(super) trait Quads {
    /// 16 activations or weights.
    type Bytes: Copy;
    /// Four sums.
    type Sums: Copy;
    /// Four sums in parts that are only added up at the end, where that is faster.
    type Parts: Copy;
    /// Four sums, scaled.
    type Scaled: Copy;

    /// Pixels of the widest tile of [`conv`]: four times as many parts stay in registers.
    const PIXELS: usize;

    /// # Safety
    /// The processor. 16 bytes can be read.
    unsafe fn load(from: *const u8) -> Self::Bytes;

    /// # Safety
    /// The processor. 16 bytes can be written.
    unsafe fn store(to: *mut u8, bytes: Self::Bytes);

    /// Four bytes, four times.
    ///
    /// # Safety
    /// The processor. Four bytes can be read.
    unsafe fn repeat(from: *const u8) -> Self::Bytes;

    /// What four sums begin at: the bias, in the form that [`Quads::scale`] expects.
    ///
    /// # Safety
    /// The processor. Four i32 can be read.
    unsafe fn start(bias: *const i32, narrow: bool) -> Self::Sums;

    /// Adds four products to each of four sums.
    ///
    /// # Safety
    /// The processor.
    unsafe fn dot(sums: Self::Sums, a: Self::Bytes, w: Self::Bytes) -> Self::Sums;

    /// Sums in parts.
    ///
    /// # Safety
    /// The processor.
    unsafe fn open(sums: Self::Sums) -> Self::Parts;

    /// Adds four products to each of four sums.
    ///
    /// # Safety
    /// The processor.
    unsafe fn dot_once(parts: Self::Parts, a: Self::Bytes, w: Self::Bytes) -> Self::Parts;

    /// Adds twice four products, of weights that are not −128, to each of four sums.
    ///
    /// # Safety
    /// The processor.
    unsafe fn dot_twice(
        parts: Self::Parts,
        a: [Self::Bytes; 2],
        w: [Self::Bytes; 2],
    ) -> Self::Parts;

    /// The sums of the parts.
    ///
    /// # Safety
    /// The processor.
    unsafe fn close(parts: Self::Parts) -> Self::Sums;

    /// Writes four sums, which began without [`Quads::start`]'s `narrow`.
    ///
    /// # Safety
    /// The processor. Four i32 can be written.
    unsafe fn write(sums: Self::Sums, to: *mut i32);

    /// `a0 b0 c0 d0`, `a1 b1 c1 d1`, and so on.
    ///
    /// # Safety
    /// The processor.
    unsafe fn interleave(rows: [Self::Bytes; 4]) -> [Self::Bytes; 4];

    /// `f32(sum) · scale`, of four scales.
    ///
    /// # Safety
    /// The processor. Four f32 can be read.
    unsafe fn scale(sums: Self::Sums, scales: *const f32, narrow: bool) -> Self::Scaled;

    /// Adds `(values − zero_point) · scale`. A scale of 15 significant bits makes the product
    /// exact.
    ///
    /// # Safety
    /// The processor.
    unsafe fn add(
        sums: [Self::Scaled; 4],
        values: Self::Bytes,
        zero_point: f32,
        scale: f32,
    ) -> [Self::Scaled; 4];

    /// Rounds, adds the zero point, narrows and clamps.
    ///
    /// # Safety
    /// The processor.
    unsafe fn narrow(sums: [Self::Scaled; 4], finish: Finish) -> Self::Bytes;
}

/// Reads `count` bytes, at most 16; those beyond are 0.
///
/// # Safety
/// The processor. `count` is at most 16, and that many bytes can be read.
#[inline(always)]
pub(super) unsafe fn load<Q: Quads>(from: *const u8, count: usize) -> Q::Bytes {
    // SAFETY: `count` bytes can be read at `from`; 16 where it is that, otherwise 16 of the array.
    unsafe {
        if count == 16 {
            return Q::load(from);
        }
        let mut bytes = [0u8; 16];
        from.copy_to_nonoverlapping(bytes.as_mut_ptr(), count);
        Q::load(bytes.as_ptr())
    }
}

/// Writes the first `count` bytes.
///
/// # Safety
/// The processor. `count` is at most 16, and that many bytes can be written.
#[inline(always)]
pub(super) unsafe fn store<Q: Quads>(to: *mut u8, bytes: Q::Bytes, count: usize) {
    // SAFETY: `count` bytes can be written at `to`; 16 where it is that, otherwise 16 of the array.
    unsafe {
        if count == 16 {
            return Q::store(to, bytes);
        }
        let mut all = [0u8; 16];
        Q::store(all.as_mut_ptr(), bytes);
        to.copy_from_nonoverlapping(all.as_ptr(), count);
    }
}

/// The table of an instruction set, as a module.
macro_rules! kernels {
    ($module:ident, $isa:ident, $feature:literal, $quads:ty, $tile:path, $peak:path) => {
        pub(crate) mod $module {
            use super::*;
            use crate::Isa;
            use crate::arch::depthwise::{general, rolling};
            use crate::arch::quads::depthwise::All;
            use crate::packed::Packing;
            use crate::strided::{ConvBlock, DepthwiseRows, Kernels, ProductKernels, portable};

            portable::portable!(vectors, [$feature], 0);

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
                unsafe { $peak(rounds) }
            }

            /// # Safety
            /// As [`conv::tile`](crate::arch::quads::conv::tile).
            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn tile<const P: usize, const REAL: bool>(block: &ConvBlock, first: usize) {
                // SAFETY: the processor and the block, whose pixels these are.
                unsafe { $tile(block, first) }
            }

            /// # Safety
            /// The processor and the block.
            unsafe fn conv(block: &ConvBlock) {
                // SAFETY: the processor and the block.
                unsafe { tiles::<false>(block) };
            }

            /// # Safety
            /// The processor and the block, with `rows`.
            unsafe fn product(block: &ConvBlock) {
                // SAFETY: the processor and the block.
                unsafe { tiles::<true>(block) };
            }

            /// # Safety
            /// The processor and the block; with `rows` where `REAL`.
            unsafe fn tiles<const REAL: bool>(block: &ConvBlock) {
                use crate::arch::quads::Quads;
                let mut first = 0;
                macro_rules! tiles {
                    ($pixels:literal) => {
                        while $pixels <= <$quads>::PIXELS && block.pixels - first >= $pixels {
                            // SAFETY: the processor and the block; the pixels from `first` on are enough.
                            unsafe { tile::<$pixels, REAL>(block, first) };
                            first += $pixels;
                        }
                    };
                }
                tiles!(4);
                tiles!(2);
                tiles!(1);
            }

            /// # Safety
            /// The processor and the rows.
            #[target_feature(enable = $feature)]
            unsafe fn depthwise(block: &DepthwiseRows) {
                // SAFETY: the processor and the rows; kernel and distance are those matched.
                unsafe {
                    match (block.kernel, block.columns_between) {
                        ([3, 3], 1) => rolling::<All<$quads>, 3, 3, 1, 3>(block),
                        ([3, 3], 2) => rolling::<All<$quads>, 3, 3, 2, 2>(block),
                        ([5, 5], 1) => rolling::<All<$quads>, 5, 5, 1, 5>(block),
                        ([5, 5], 2) => rolling::<All<$quads>, 5, 5, 2, 3>(block),
                        _ => general::<All<$quads>>(block),
                    }
                }
            }
        }
    };
}

pub(super) use kernels;
