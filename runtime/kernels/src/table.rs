//! The table of kernels for dense activations and weights as they are in a program.

use crate::{
    Add, AveragePool, Conv, Dequantize, MaxPool, Move, Multiply, Quantize, Resize, Softmax, scalar,
};

/// One function per operation. All tables give the same bytes; each writes its last argument.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// Convolution.
    pub conv: fn(&Conv<'_>, &mut [i8]),
    /// Convolution, not of single channels, whose weights have the form of
    /// [`sparse`](crate::sparse), with a row for each output channel.
    #[cfg(feature = "sparse")]
    pub sparse: fn(&Conv<'_>, &mut [i8]),
    /// Sum.
    pub add: fn(&Add<'_>, &mut [i8]),
    /// Product.
    pub multiply: fn(&Multiply<'_>, &mut [i8]),
    /// Greatest value of each window.
    pub max_pool: fn(&MaxPool<'_>, &mut [i8]),
    /// Mean of each window.
    pub average_pool: fn(&AveragePool<'_>, &mut [i8]),
    /// `output[i] = table[input[i] + 128]`: table, input, output.
    pub lookup: fn(&[i8; 256], &[i8], &mut [i8]),
    /// Copy.
    pub copy: fn(&Move<'_>, &mut [i8]),
    /// Interpolation.
    pub resize: fn(&Resize<'_>, &mut [i8]),
    /// Softmax.
    pub softmax: fn(&Softmax<'_>, &mut [i8]),
    /// From real values.
    pub quantize: fn(&Quantize<'_>, &mut [i8]),
    /// To real values.
    pub dequantize: fn(&Dequantize<'_>, &mut [f32]),
}

impl Kernels {
    /// The definition.
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

    /// The best for what the program was compiled for: with the feature `dsp`, Arm's instructions
    /// for two products of 16 bits.
    #[cfg(not(all(target_arch = "arm", feature = "dsp")))]
    pub const NATIVE: Self = Self::SCALAR;
    /// The best for what the program was compiled for: Arm's instructions for two products of 16
    /// bits.
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    pub const NATIVE: Self = crate::arch::arm::dsp::KERNELS;
}
