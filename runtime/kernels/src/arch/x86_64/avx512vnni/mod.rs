//! Kernels for AVX-512 VNNI: vectors of 16 accumulators with four u8 × i8 MACs each per
//! instruction.

mod bytes;
mod conv;
mod depthwise;
mod epilogue;
mod half;

use core::arch::x86_64::*;
use core::hint::black_box;

use crate::Isa;
use crate::packed::Packing;
use crate::strided::{Kernels, ProductKernels, portable};

portable::portable!(vectors, ["avx512f,avx512bw,avx512vl,fma"], 0x80);

pub(crate) static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
    packing: Packing::X86Zmm,
    conv: conv::conv,
    depthwise: depthwise::depthwise,
    peak,
    add: vectors::add,
    multiply: vectors::multiply,
    rescale: vectors::rescale,
    lookup: bytes::lookup,
    quantize: vectors::quantize,
    interleave: bytes::interleave,
    max_pool: vectors::max_pool,
    average_pool: vectors::average_pool,
    resize: vectors::resize,
    softmax: vectors::softmax,
};

pub(crate) const PRODUCTS: ProductKernels =
    ProductKernels { extent: vectors::extent, affine: vectors::affine, multiply: conv::product };

/// See [`Kernels::peak`].
#[target_feature(enable = "avx512f,avx512vnni")]
fn peak(rounds: usize) -> u64 {
    const SUMS: usize = 16;
    let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
    (rounds * SUMS * 64) as u64
}
