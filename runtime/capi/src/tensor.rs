//! Descriptions of inputs and outputs, and tensors.

use std::ffi::{CString, c_char, c_void};

use hardtack::{DType, Extent, Port, Tensor, View, ViewMut, for_data};
use hardtack_bundle::manifest::MAX_RANK;

use crate::pointer::{slice, slice_mut};
use crate::status::{Failure, argument, mismatch};

/// The maximum number of dimensions.
pub const HARDTACK_MAX_RANK: usize = 8;
const _: () = assert!(HARDTACK_MAX_RANK == MAX_RANK);

/// The size of a dimension that the caller chooses.
pub const HARDTACK_ANY: u64 = u64::MAX;

/// The element types. 0 is not a type, so that an uninitialized field is detected.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum HardtackType {
    Bool = 1,
    I8 = 2,
    U8 = 3,
    I16 = 4,
    U16 = 5,
    I32 = 6,
    U32 = 7,
    I64 = 8,
    U64 = 9,
    F16 = 10,
    Bf16 = 11,
    F32 = 12,
    F64 = 13,
}

const TYPES: [(HardtackType, DType); 13] = [
    (HardtackType::Bool, DType::Bool),
    (HardtackType::I8, DType::I8),
    (HardtackType::U8, DType::U8),
    (HardtackType::I16, DType::I16),
    (HardtackType::U16, DType::U16),
    (HardtackType::I32, DType::I32),
    (HardtackType::U32, DType::U32),
    (HardtackType::I64, DType::I64),
    (HardtackType::U64, DType::U64),
    (HardtackType::F16, DType::F16),
    (HardtackType::Bf16, DType::BF16),
    (HardtackType::F32, DType::F32),
    (HardtackType::F64, DType::F64),
];

/// The description of an input or output of a model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackPort {
    /// The name, valid until the session is freed.
    pub name: *const c_char,
    /// The element type, a `HardtackType`.
    pub dtype: u32,
    /// The number of dimensions.
    pub rank: u32,
    /// The dimensions, outermost first. `HARDTACK_ANY` for a size that the caller chooses.
    pub shape: [u64; HARDTACK_MAX_RANK],
    /// Whether the elements are quantized: integers that represent `scale * (integer -
    /// zero_point)`.
    pub is_quantized: bool,
    /// The scale; see `is_quantized`.
    pub scale: f32,
    /// The zero point; see `is_quantized`.
    pub zero_point: i32,
}

/// A tensor: an input with elements of the caller, or an output with elements of the session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackTensor {
    /// The name of the input or output. An input without a name (NULL) is matched by its position.
    pub name: *const c_char,
    /// The element type, a `HardtackType`.
    pub dtype: u32,
    /// The number of dimensions. If it is 0 and there is more than one element, the shape is that
    /// of the model's input, with an unknown dimension computed from the number of elements.
    pub rank: u32,
    /// The dimensions, outermost first.
    pub shape: [u64; HARDTACK_MAX_RANK],
    /// The elements in row-major order, aligned to their size.
    pub data: *const c_void,
    /// The size of all elements in bytes.
    pub bytes: usize,
}

/// A buffer of the caller for the elements of an output.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackBuffer {
    /// The name of the output. A buffer without a name (NULL) is matched by its position.
    pub name: *const c_char,
    /// The element type: `HARDTACK_TYPE_F32`, `HARDTACK_TYPE_I8` or `HARDTACK_TYPE_U8`.
    pub dtype: u32,
    /// The memory that receives the elements, aligned to their size.
    pub data: *mut c_void,
    /// The size of the buffer in bytes.
    pub bytes: usize,
}

fn number(dtype: DType) -> u32 {
    let known = TYPES.iter().find(|(_, other)| *other == dtype);
    known.map_or(u32::MAX, |(known, _)| *known as u32)
}

fn known(number: u32) -> Result<DType, Failure> {
    let found = TYPES.iter().find(|(known, _)| *known as u32 == number);
    found
        .map(|(_, dtype)| *dtype)
        .ok_or_else(|| argument(format!("{number} is not a HardtackType")))
}

impl HardtackPort {
    pub(crate) fn of(port: &Port, name: &CString) -> HardtackPort {
        let mut shape = [0; HARDTACK_MAX_RANK];
        for (to, extent) in shape.iter_mut().zip(&port.shape) {
            *to = match extent {
                Extent::Fixed(size) => *size as u64,
                Extent::Named(_) => HARDTACK_ANY,
            };
        }
        let quantization = port.quantization;
        HardtackPort {
            name: name.as_ptr(),
            dtype: number(port.dtype),
            rank: port.shape.len() as u32,
            shape,
            is_quantized: quantization.is_some(),
            scale: quantization.map_or(1.0, |q| q.scale),
            zero_point: quantization.map_or(0, |q| q.zero_point),
        }
    }
}

impl HardtackTensor {
    pub(crate) fn of(tensor: &Tensor, name: &CString) -> HardtackTensor {
        let mut shape = [0; HARDTACK_MAX_RANK];
        for (to, size) in shape.iter_mut().zip(tensor.shape()) {
            *to = *size as u64;
        }
        HardtackTensor {
            name: name.as_ptr(),
            dtype: number(tensor.dtype()),
            rank: tensor.shape().len() as u32,
            shape,
            data: for_data!(tensor.data(), elements => elements.as_ptr().cast()),
            bytes: tensor.len() * tensor.dtype().size().unwrap_or(0),
        }
    }

    /// Copies the elements into a tensor. If it states no shape, its shape is that of `port`.
    ///
    /// # Safety
    /// `data` is null or points to `bytes` bytes.
    pub(crate) unsafe fn tensor(&self, port: Option<&Port>) -> Result<Tensor, Failure> {
        let dtype = known(self.dtype)?;
        let rank = self.rank as usize;
        let sizes = self.shape.get(..rank).ok_or_else(|| {
            argument(format!("a tensor has {rank} dimensions; the maximum is {HARDTACK_MAX_RANK}"))
        })?;
        let sizes = sizes.iter().map(|size| usize::try_from(*size).ok());
        let mut shape: Vec<usize> = sizes
            .collect::<Option<_>>()
            .ok_or_else(|| argument("a dimension is larger than memory"))?;
        // SAFETY: `data` is null or points to `bytes` bytes, which do not change during the call.
        let bytes = unsafe { slice(self.data.cast::<u8>(), self.bytes, "data of a tensor")? };
        let elements = bytes.len() / dtype.size().unwrap_or(1);
        if let (Some(port), true) = (port, shape.is_empty() && elements != 1) {
            shape = filled(port, elements)?;
        }
        Tensor::from_bytes(dtype, &shape, bytes).ok_or_else(|| {
            mismatch(format!(
                "the size of a tensor of {dtype} with shape {shape:?} is not {} bytes",
                self.bytes
            ))
        })
    }

    /// Returns a view of the elements, without a copy.
    ///
    /// # Safety
    /// `data` is null or points to `bytes` bytes that live and are not mutated for `'a`.
    pub(crate) unsafe fn view<'a>(&self) -> Result<View<'a>, Failure> {
        let what = "data of a tensor";
        // SAFETY: `data` is null or points to `bytes` bytes that live and are not mutated for `'a`.
        // Every bit pattern is valid for these types.
        unsafe {
            Ok(match known(self.dtype)? {
                DType::F32 => View::F32(slice(self.data.cast(), count(self.bytes, 4)?, what)?),
                DType::I8 => View::I8(slice(self.data.cast(), self.bytes, what)?),
                DType::U8 => View::U8(slice(self.data.cast(), self.bytes, what)?),
                other => return Err(only_some(other)),
            })
        }
    }
}

impl HardtackBuffer {
    /// Returns a mutable view of the buffer.
    ///
    /// # Safety
    /// `data` is null or points to `bytes` bytes that live for `'a` and that nothing else accesses.
    pub(crate) unsafe fn view<'a>(&self) -> Result<ViewMut<'a>, Failure> {
        let what = "data of a buffer";
        // SAFETY: `data` is null or points to `bytes` bytes that live for `'a` and that nothing
        // else accesses. Every bit pattern is valid for these types.
        unsafe {
            Ok(match known(self.dtype)? {
                DType::F32 => {
                    ViewMut::F32(slice_mut(self.data.cast(), count(self.bytes, 4)?, what)?)
                }
                DType::I8 => ViewMut::I8(slice_mut(self.data.cast(), self.bytes, what)?),
                DType::U8 => ViewMut::U8(slice_mut(self.data.cast(), self.bytes, what)?),
                other => return Err(only_some(other)),
            })
        }
    }
}

fn count(bytes: usize, size: usize) -> Result<usize, Failure> {
    if bytes.is_multiple_of(size) {
        return Ok(bytes / size);
    }
    Err(argument(format!("{bytes} bytes is not a multiple of the element size of {size} bytes")))
}

fn only_some(dtype: DType) -> Failure {
    argument(format!(
        "hardtack_session_run_into does not support elements of type {dtype}, only f32, i8 and u8; \
         use hardtack_session_run"
    ))
}

/// Computes the shape of an input from its number of elements.
fn filled(port: &Port, elements: usize) -> Result<Vec<usize>, Failure> {
    let fixed = port.shape.iter().map(|extent| match extent {
        Extent::Fixed(size) => Some(*size),
        Extent::Named(_) => None,
    });
    let fixed: Vec<Option<usize>> = fixed.collect();
    let known: Option<usize> = fixed.iter().flatten().try_fold(1usize, |n, d| n.checked_mul(*d));
    let free = fixed.iter().filter(|size| size.is_none()).count();
    let fits = known.filter(|known| *known > 0 && elements.is_multiple_of(*known) && free <= 1);
    let Some(known) = fits else {
        return Err(mismatch(format!(
            "{elements} elements do not determine the shape of input {port}; set the shape"
        )));
    };
    Ok(fixed.into_iter().map(|size| size.unwrap_or(elements / known)).collect())
}
