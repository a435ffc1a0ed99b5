//! The table of kernels of each instruction set.

use core::fmt;

use crate::{
    Add, AveragePool, Conv, Dequantize, MaxPool, Move, Multiply, Quantize, Resize, Softmax, scalar,
};

/// The instruction set that a table of kernels needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// None in particular: portable code.
    Scalar,
}

impl Isa {
    /// Every instruction set there is a table for, on whatever processor, best first.
    pub const ALL: &'static [Self] = &[Self::Scalar];

    /// Its name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
        }
    }

    /// The instruction set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One function per operation. All tables give the same bytes; each writes its last argument.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The instruction set they need.
    pub isa: Isa,
    /// Convolution.
    pub conv: fn(&Conv<'_>, &mut [i8]),
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
    /// The fastest kernels this processor runs.
    pub fn detect() -> &'static Self {
        &SCALAR
    }

    /// The kernels for `isa`, if this processor runs them.
    pub fn for_isa(isa: Isa) -> Option<&'static Self> {
        match isa {
            Isa::Scalar => Some(&SCALAR),
        }
    }
}

static SCALAR: Kernels = Kernels {
    isa: Isa::Scalar,
    conv: scalar::conv,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_kernels_can_always_be_forced() {
        for &isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Kernels::for_isa(Isa::Scalar).map(|kernels| kernels.isa), Some(Isa::Scalar));
        assert_eq!(Isa::from_name("none"), None);
    }
}
