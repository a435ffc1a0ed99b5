//! x86-64.

mod avx512vnni;
mod ymm;

pub(crate) use avx512vnni::KERNELS as AVX512VNNI;
pub(crate) use ymm::avx2::KERNELS as AVX2;
pub(crate) use ymm::avx512vl::KERNELS as AVX512VL;
pub(crate) use ymm::avxvnni::KERNELS as AVXVNNI;
