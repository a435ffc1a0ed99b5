//! Kernels for 128-bit vectors, shared by several processor families. The loops are the same; each
//! family implements the instructions.

pub(super) mod conv;
pub(super) mod depthwise;

use crate::strided::Epilogue;

/// The operations of an instruction set on 128-bit vectors of 16 i8, four i32 or four f32.
///
/// # Safety of the functions
/// The CPU must support the instruction set of the implementation. Pointers need not be aligned.
pub(super) trait Vec128 {
    /// 16 activations or weights.
    type Bytes: Copy;
    /// Four accumulators.
    type Sums: Copy;
    /// Partial sums of four accumulators, reduced only at the end where that is faster.
    type Parts: Copy;
    /// Four scaled accumulators.
    type Scaled: Copy;

    /// The pixels of the largest tile of [`conv`], which keeps four [`Vec128::Parts`] per pixel in
    /// registers.
    const PIXELS: usize;

    /// Loads 16 bytes.
    ///
    /// # Safety
    /// The CPU features. 16 bytes must be readable at `from`.
    unsafe fn load(from: *const u8) -> Self::Bytes;

    /// Stores 16 bytes.
    ///
    /// # Safety
    /// The CPU features. 16 bytes must be writable at `to`.
    unsafe fn store(to: *mut u8, bytes: Self::Bytes);

    /// Loads four bytes and repeats them four times.
    ///
    /// # Safety
    /// The CPU features. Four bytes must be readable at `from`.
    unsafe fn repeat(from: *const u8) -> Self::Bytes;

    /// Returns four accumulators initialized with the bias, in the form that [`Vec128::scale`]
    /// expects.
    ///
    /// # Safety
    /// The CPU features. Four i32 must be readable at `bias`.
    unsafe fn start(bias: *const i32, narrow: bool) -> Self::Sums;

    /// Adds four products to each of four accumulators.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn dot(sums: Self::Sums, a: Self::Bytes, w: Self::Bytes) -> Self::Sums;

    /// Converts accumulators to partial sums.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn open(sums: Self::Sums) -> Self::Parts;

    /// Adds four products to each of four accumulators in partial sums.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn dot_once(parts: Self::Parts, a: Self::Bytes, w: Self::Bytes) -> Self::Parts;

    /// Adds two times four products to each of four accumulators in partial sums. No weight may be
    /// −128, or the result can be wrong.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn dot_twice(
        parts: Self::Parts,
        a: [Self::Bytes; 2],
        w: [Self::Bytes; 2],
    ) -> Self::Parts;

    /// Reduces partial sums to accumulators.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn close(parts: Self::Parts) -> Self::Sums;

    /// Stores four accumulators, which must have been started with `narrow` false.
    ///
    /// # Safety
    /// The CPU features. Four i32 must be writable at `to`.
    unsafe fn write(sums: Self::Sums, to: *mut i32);

    /// Interleaves four vectors: `a0 b0 c0 d0`, `a1 b1 c1 d1`, and so on.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn interleave(rows: [Self::Bytes; 4]) -> [Self::Bytes; 4];

    /// Returns `f32(sum) · scale` for four accumulators and four scales.
    ///
    /// # Safety
    /// The CPU features. Four f32 must be readable at `scales`.
    unsafe fn scale(sums: Self::Sums, scales: *const f32, narrow: bool) -> Self::Scaled;

    /// Adds `(values − zero_point) · scale`. The product is exact, because the scale has at most 15
    /// significant bits.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn add(
        sums: [Self::Scaled; 4],
        values: Self::Bytes,
        zero_point: f32,
        scale: f32,
    ) -> [Self::Scaled; 4];

    /// Applies the epilogue: rounds, adds the zero point, narrows to bytes and clamps.
    ///
    /// # Safety
    /// The CPU features.
    unsafe fn narrow(sums: [Self::Scaled; 4], epilogue: Epilogue) -> Self::Bytes;
}

/// Loads `count` bytes; the others are 0.
///
/// # Safety
/// The CPU features. `count` must be at most 16, and `count` bytes must be readable at `from`.
#[inline(always)]
pub(super) unsafe fn load<Q: Vec128>(from: *const u8, count: usize) -> Q::Bytes {
    // SAFETY: the caller guarantees the CPU features and that `count` bytes, at most 16, are
    // readable at `from`. `Q::load` reads 16 bytes of `from` only if `count` is 16, otherwise of
    // the array.
    unsafe {
        if count == 16 {
            return Q::load(from);
        }
        let mut bytes = [0u8; 16];
        from.copy_to_nonoverlapping(bytes.as_mut_ptr(), count);
        Q::load(bytes.as_ptr())
    }
}

/// Stores the first `count` bytes.
///
/// # Safety
/// The CPU features. `count` must be at most 16, and `count` bytes must be writable at `to`.
#[inline(always)]
pub(super) unsafe fn store<Q: Vec128>(to: *mut u8, bytes: Q::Bytes, count: usize) {
    // SAFETY: the caller guarantees the CPU features and that `count` bytes, at most 16, are
    // writable at `to`. `Q::store` writes 16 bytes of `to` only if `count` is 16, otherwise of the
    // array.
    unsafe {
        if count == 16 {
            return Q::store(to, bytes);
        }
        let mut all = [0u8; 16];
        Q::store(all.as_mut_ptr(), bytes);
        to.copy_from_nonoverlapping(all.as_ptr(), count);
    }
}

/// Defines the kernel table of an instruction set in a module.
macro_rules! kernels {
    ($module:ident, $isa:ident, $feature:literal, $vec128:ty, $tile:path, $peak:path) => {
        pub(crate) mod $module {
            use super::*;
            use crate::Isa;
            use crate::arch::depthwise::{general, rolling};
            use crate::arch::vec128::depthwise::All;
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
            /// The CPU must support `$feature`.
            #[target_feature(enable = $feature)]
            unsafe fn peak(rounds: usize) -> u64 {
                // SAFETY: the caller guarantees `$feature`.
                unsafe { $peak(rounds) }
            }

            /// # Safety
            /// See [`conv::tile`](crate::arch::vec128::conv::tile).
            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn tile<const P: usize, const REAL: bool>(block: &ConvBlock, first: usize) {
                // SAFETY: the caller guarantees `$feature`, the contract of `ConvBlock`, and that
                // the block has `first + P` pixels.
                unsafe { $tile(block, first) }
            }

            /// # Safety
            /// The CPU features and the contract of [`ConvBlock`], with `rows` null.
            unsafe fn conv(block: &ConvBlock) {
                // SAFETY: the caller guarantees the CPU features and the contract of `ConvBlock`.
                unsafe { tiles::<false>(block) };
            }

            /// # Safety
            /// The CPU features and the contract of [`ConvBlock`], with `rows`.
            unsafe fn product(block: &ConvBlock) {
                // SAFETY: the caller guarantees the CPU features and the contract of `ConvBlock`
                // with `rows`.
                unsafe { tiles::<true>(block) };
            }

            /// # Safety
            /// The CPU features and the contract of [`ConvBlock`], with `rows` if `REAL`.
            unsafe fn tiles<const REAL: bool>(block: &ConvBlock) {
                use crate::arch::vec128::Vec128;
                let mut first = 0;
                macro_rules! tiles {
                    ($pixels:literal) => {
                        while $pixels <= <$vec128>::PIXELS && block.pixels - first >= $pixels {
                            // SAFETY: the caller guarantees the CPU features and the contract of
                            // `ConvBlock`. At least `$pixels` pixels are left from `first`.
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
            /// The CPU features and the contract of [`DepthwiseRows`].
            #[target_feature(enable = $feature)]
            unsafe fn depthwise(block: &DepthwiseRows) {
                // SAFETY: the caller guarantees `$feature` and the contract of `DepthwiseRows`. The
                // kernel size and `columns_between` equal the const arguments of `rolling`.
                unsafe {
                    match (block.kernel, block.columns_between) {
                        ([3, 3], 1) => rolling::<All<$vec128>, 3, 3, 1, 3>(block),
                        ([3, 3], 2) => rolling::<All<$vec128>, 3, 3, 2, 2>(block),
                        ([5, 5], 1) => rolling::<All<$vec128>, 5, 5, 1, 5>(block),
                        ([5, 5], 2) => rolling::<All<$vec128>, 5, 5, 2, 3>(block),
                        _ => general::<All<$vec128>>(block),
                    }
                }
            }
        }
    };
}

pub(super) use kernels;
