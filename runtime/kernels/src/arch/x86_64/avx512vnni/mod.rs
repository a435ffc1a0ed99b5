//! AVX-512 VNNI: vectors of 16 sums, each of products of 4 pairs of u8 and i8.

mod bytes;
mod conv;
mod depthwise;
mod finish;

use crate::Isa;
use crate::packed::Packing;
use crate::strided::{Kernels, portable};

portable::portable!(vectors, "avx512f,avx512bw,avx512vl,fma", 0x80);

pub(crate) static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
    packing: Packing::X86Zmm,
    conv: conv::conv,
    depthwise: depthwise::depthwise,
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
