//! The table of kernels for contiguous tensors and the weight layout of programs.

use crate::{
    Add, AveragePool, Conv, Dequantize, MaxPool, Move, Multiply, Quantize, Resize, Softmax, scalar,
};

/// One function per operation. All tables give identical results. The last argument of each
/// function is the output.
///
/// # Examples
///
/// Add two tensors of scale 0.5 into one of scale 1:
///
/// ```
/// use hardtack_kernels::{Add, Clamp, ReferenceKernels};
///
/// let add = Add {
///     a: &[10, 20, 127],
///     b: &[3, -40, 127],
///     zero_point_a: 0,
///     zero_point_b: 0,
///     scale_a: 0.5,
///     scale_b: 0.5,
///     zero_point: 0,
///     clamp: Clamp::FULL,
/// };
/// let mut sum = [0; 3];
/// (ReferenceKernels::SCALAR.add)(&add, &mut sum);
/// assert_eq!(sum, [6, -10, 127]); // 6.5 rounds to even
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReferenceKernels {
    /// Computes a convolution.
    pub conv: fn(&Conv<'_>, &mut [i8]),
    /// Computes a convolution that is not depthwise, with weights in the
    /// [`sparse`](crate::sparse) encoding, one row per output channel.
    #[cfg(feature = "sparse")]
    pub sparse: fn(&Conv<'_>, &mut [i8]),
    /// Adds two tensors.
    pub add: fn(&Add<'_>, &mut [i8]),
    /// Multiplies two tensors element by element.
    pub multiply: fn(&Multiply<'_>, &mut [i8]),
    /// Computes the maximum of each window.
    pub max_pool: fn(&MaxPool<'_>, &mut [i8]),
    /// Computes the mean of each window.
    pub average_pool: fn(&AveragePool<'_>, &mut [i8]),
    /// Computes `output[i] = table[input[i] + 128]` from the arguments (table, input, output).
    pub lookup: fn(&[i8; 256], &[i8], &mut [i8]),
    /// Copies and optionally requantizes elements.
    pub copy: fn(&Move<'_>, &mut [i8]),
    /// Resizes an image by linear interpolation.
    pub resize: fn(&Resize<'_>, &mut [i8]),
    /// Computes a softmax over channels.
    pub softmax: fn(&Softmax<'_>, &mut [i8]),
    /// Quantizes floats.
    pub quantize: fn(&Quantize<'_>, &mut [i8]),
    /// Dequantizes to floats.
    pub dequantize: fn(&Dequantize<'_>, &mut [f32]),
}

impl ReferenceKernels {
    /// The reference implementation.
    pub const SCALAR: Self = Self {
        conv: scalar::conv,
        #[cfg(feature = "sparse")]
        sparse: scalar::sparse,
        add: scalar::add,
        multiply: scalar::multiply,
        max_pool: scalar::max_pool,
        average_pool: scalar::average_pool,
        lookup: scalar::lookup,
        copy: scalar::copy,
        resize: scalar::resize,
        softmax: scalar::softmax,
        quantize: scalar::quantize,
        dequantize: scalar::dequantize,
    };

    /// The best kernels for the compilation target. On 32-bit Arm with the feature `dsp`, these use
    /// the dual 16-bit multiply instructions; otherwise they are [`ReferenceKernels::SCALAR`].
    #[cfg(not(all(target_arch = "arm", feature = "dsp")))]
    pub const NATIVE: Self = Self::SCALAR;
    /// The best kernels for the compilation target: those with Arm's dual 16-bit multiply
    /// instructions.
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    pub const NATIVE: Self = crate::arch::arm::dsp::KERNELS;
}
