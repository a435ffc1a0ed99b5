//! Kernels for x86-64: AVX-512, AVX-VNNI and AVX2.

mod avx512vnni;
mod ymm;

pub(crate) use avx512vnni::{KERNELS as AVX512VNNI, PRODUCTS as AVX512VNNI_PRODUCTS};
pub(crate) use ymm::avx2::{KERNELS as AVX2, PRODUCTS as AVX2_PRODUCTS};
pub(crate) use ymm::avx512vl::{KERNELS as AVX512VL, PRODUCTS as AVX512VL_PRODUCTS};
pub(crate) use ymm::avxvnni::{KERNELS as AVXVNNI, PRODUCTS as AVXVNNI_PRODUCTS};
