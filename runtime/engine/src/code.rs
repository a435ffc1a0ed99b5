//! The binary format of a program.
//!
//! All numbers are little-endian, without padding between the fields:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | magic `HTKP` |
//! | 2 | layout version, 1 |
//! | 1 | layout family of the weights, as numbered in the bundle format; must be 6, `mcu` |
//! | 1 | 0 |
//! | 4 | size of the arena in bytes |
//! | 4 | size of the weights section in bytes |
//! | 2, 2, 2, 2 | number of inputs, outputs and tensors; 0 |
//! | 4 | number of steps |
//! | 4 | size of the steps in bytes |
//! | 4 | size of the names section in bytes; 0 if the program has no names |
//! | 8 each | inputs, then outputs: element type u8 (0 f32, 1 i8, 2 u8), three 0, elements u32 |
//! | 24 each | tensors: offset, height, width, channels u32, scale f32, zero point i8, three 0 |
//! | | steps: kind u16, version u8, 0 u8, length u32, attributes (postcard) |
//! | | names of all tensors, then of all steps: length u16, UTF-8 |

use hardtack_kernels::packed::Packing;

#[cfg(feature = "alloc")]
use crate::packed;
use crate::packed::Section;
use crate::program::{Port, PortType, Step, Tensor, TensorId};
use crate::{ProgramError, check, names};

pub(crate) const MAGIC: [u8; 4] = *b"HTKP";
pub(crate) const VERSION: u16 = 1;
pub(crate) const FAMILY_MCU: u8 = 6;
const HEADER: usize = 36;
const PORT: usize = 8;
const TENSOR: usize = 24;
const STEP: usize = 8;

/// The variable fields of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) arena_bytes: u32,
    pub(crate) weights_bytes: u32,
    pub(crate) inputs: u16,
    pub(crate) outputs: u16,
    pub(crate) tensors: u16,
    pub(crate) steps: u32,
    pub(crate) steps_bytes: u32,
    pub(crate) names_bytes: u32,
}

impl Header {
    fn read(code: &[u8]) -> Result<Self, ProgramError> {
        let Some(header) = code.first_chunk::<HEADER>() else {
            return Err(ProgramError::Magic);
        };
        let byte = |at: usize| header[at];
        let short = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
        let word = |at: usize| word(header, at);
        if !header.starts_with(&MAGIC) {
            return Err(ProgramError::Magic);
        }
        if short(4) != VERSION || byte(7) != 0 || short(22) != 0 {
            return Err(ProgramError::Version(short(4)));
        }
        if byte(6) != FAMILY_MCU {
            return Err(ProgramError::Family(byte(6)));
        }
        let header = Self {
            arena_bytes: word(8),
            weights_bytes: word(12),
            inputs: short(16),
            outputs: short(18),
            tensors: short(20),
            steps: word(24),
            steps_bytes: word(28),
            names_bytes: word(32),
        };
        let expected = header.steps_start() as u64
            + u64::from(header.steps_bytes)
            + u64::from(header.names_bytes);
        if expected != code.len() as u64 {
            return Err(ProgramError::Length { expected, given: code.len() as u64 });
        }
        Ok(header)
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn write(&self, code: &mut alloc::vec::Vec<u8>) {
        code.extend_from_slice(&MAGIC);
        code.extend_from_slice(&VERSION.to_le_bytes());
        code.extend_from_slice(&[FAMILY_MCU, 0]);
        code.extend_from_slice(&self.arena_bytes.to_le_bytes());
        code.extend_from_slice(&self.weights_bytes.to_le_bytes());
        for count in [self.inputs, self.outputs, self.tensors, 0] {
            code.extend_from_slice(&count.to_le_bytes());
        }
        for number in [self.steps, self.steps_bytes, self.names_bytes] {
            code.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn tensors_start(&self) -> usize {
        HEADER + PORT * (usize::from(self.inputs) + usize::from(self.outputs))
    }

    fn steps_start(&self) -> usize {
        self.tensors_start() + TENSOR * usize::from(self.tensors)
    }

    fn names_start(&self) -> usize {
        self.steps_start() + self.steps_bytes as usize
    }
}

#[cfg(feature = "alloc")]
impl Port {
    pub(crate) fn write(&self, code: &mut alloc::vec::Vec<u8>) {
        let element = match self.element {
            PortType::F32 => 0,
            PortType::I8 => 1,
            PortType::U8 => 2,
        };
        code.extend_from_slice(&[element, 0, 0, 0]);
        code.extend_from_slice(&self.elements.to_le_bytes());
    }
}

#[cfg(feature = "alloc")]
impl Tensor {
    pub(crate) fn write(&self, code: &mut alloc::vec::Vec<u8>) {
        let scale = self.scale.to_bits();
        for number in [self.offset, self.height, self.width, self.channels, scale] {
            code.extend_from_slice(&number.to_le_bytes());
        }
        code.extend_from_slice(&[self.zero_point as u8, 0, 0, 0]);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A view of the tables in a program's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code<'a> {
    pub(crate) header: Header,
    bytes: &'a [u8],
}

impl<'a> Code<'a> {
    /// Checks the header, the length of the tables, and the types of inputs and outputs.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ProgramError> {
        let code = Self { header: Header::read(bytes)?, bytes };
        let ports = code.header.inputs as u32 + u32::from(code.header.outputs);
        match (0..ports).find(|&index| code.port(index as usize).is_none()) {
            Some(index) => Err(ProgramError::Port(index)),
            None => Ok(code),
        }
    }

    fn port(&self, index: usize) -> Option<Port> {
        let at = HEADER + PORT * index;
        let record = &self.bytes[at..at + PORT];
        let element = match record[..4] {
            [0, 0, 0, 0] => PortType::F32,
            [1, 0, 0, 0] => PortType::I8,
            [2, 0, 0, 0] => PortType::U8,
            _ => return None,
        };
        let elements = word(record, 4);
        (elements > 0).then_some(Port { element, elements })
    }

    pub(crate) fn input(&self, index: u16) -> Option<Port> {
        (index < self.header.inputs).then(|| self.port(index.into())).flatten()
    }

    pub(crate) fn output(&self, index: u16) -> Option<Port> {
        let first = usize::from(self.header.inputs);
        (index < self.header.outputs).then(|| self.port(first + usize::from(index))).flatten()
    }

    pub(crate) fn tensor(&self, id: TensorId) -> Option<Tensor> {
        if id >= self.header.tensors {
            return None;
        }
        let at = self.header.tensors_start() + TENSOR * usize::from(id);
        let record = &self.bytes[at..at + TENSOR];
        Some(Tensor {
            offset: word(record, 0),
            height: word(record, 4),
            width: word(record, 8),
            channels: word(record, 12),
            scale: f32::from_bits(word(record, 16)),
            zero_point: record[20] as i8,
        })
    }

    /// Returns the reserved bytes of a tensor's record.
    pub(crate) fn tensor_padding(&self, id: TensorId) -> &'a [u8] {
        let at = self.header.tensors_start() + TENSOR * usize::from(id);
        &self.bytes[at + 21..at + TENSOR]
    }

    pub(crate) fn names(&self) -> &'a [u8] {
        &self.bytes[self.header.names_start()..]
    }

    /// Returns an iterator over the decoded steps. It ends after the first error.
    pub(crate) fn steps(&self) -> RawSteps<'a> {
        let bytes = &self.bytes[self.header.steps_start()..self.header.names_start()];
        RawSteps { rest: bytes, index: 0, count: self.header.steps }
    }
}

/// An iterator that decodes steps.
#[derive(Clone, Debug)]
pub(crate) struct RawSteps<'a> {
    rest: &'a [u8],
    index: u32,
    count: u32,
}

impl RawSteps<'_> {
    fn decode(&mut self) -> Option<Result<Step, ProgramError>> {
        use crate::step::Undecoded;
        let index = self.index;
        if index == self.count {
            let rest = core::mem::take(&mut self.rest);
            return (!rest.is_empty()).then_some(Err(ProgramError::StepBytes(index)));
        }
        let malformed = Some(Err(ProgramError::StepBytes(index)));
        let Some((head, rest)) = self.rest.split_at_checked(STEP) else { return malformed };
        let (id, version) = (u16::from_le_bytes([head[0], head[1]]), head[2]);
        let Some((attributes, rest)) = rest.split_at_checked(word(head, 4) as usize) else {
            return malformed;
        };
        if head[3] != 0 {
            return malformed;
        }
        self.rest = rest;
        self.index += 1;
        Some(Step::decode(id, version, attributes).map_err(|undecoded| match undecoded {
            Undecoded::Kind => ProgramError::UnknownStep { index, id },
            Undecoded::Version(kind) => ProgramError::StepVersion { index, kind, version },
            Undecoded::Attributes(kind) => {
                ProgramError::Step { index, kind, problem: crate::Problem::Attributes }
            }
        }))
    }
}

impl Iterator for RawSteps<'_> {
    type Item = Result<Step, ProgramError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.decode();
        if matches!(item, Some(Err(_))) {
            (self.rest, self.index) = (&[], self.count);
        }
        item
    }
}

/// A validated program and its weights.
///
/// `B` is the type of the byte buffers: for example `&[u8]` for a program in flash, or
/// `Arc<[u8]>` for one that owns its bytes. Weights must be aligned to 4 bytes.
///
/// # Examples
///
/// Run one sample of an integer program, as firmware does:
///
/// ```
/// use hardtack_engine::{Input, Output, Program};
/// use hardtack_kernels::ReferenceKernels;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let file = "/../../tests/frozen/programs/kws_dscnn_i8.tack";
/// # let file = std::fs::read(format!("{}{file}", env!("CARGO_MANIFEST_DIR")))?;
/// # let (code, weights) = (&file[1024..3431], &file[3456..31_200]);
/// // `code` and `weights` are the two sections of a bundle that contain the program.
/// let program = Program::parse(code, weights)?;
/// let mut arena = vec![0i8; program.arena_bytes()];
/// let (features, mut scores) = ([0i8; 490], [0i8; 12]);
/// let outputs = &mut [Output::I8(&mut scores)];
/// program.run(&ReferenceKernels::NATIVE, &mut arena, &[Input::I8(&features)], outputs)?;
/// assert!(scores.iter().any(|score| *score > -128));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Program<B> {
    header: Header,
    code: B,
    weights: B,
    packing: Option<Packing>,
}

impl<B: AsRef<[u8]>> Program<B> {
    /// The largest arena that a program may need, in bytes: 1 GiB.
    pub const MAXIMUM_ARENA: u32 = 1 << 30;

    /// Validates a program with weights in the layout of the family `mcu`.
    ///
    /// Checks that every tensor lies in the arena, that every weight range lies in the weights
    /// section and has the right length, that every strided copy, window and table stays within
    /// its tensors, and that no step overwrites its inputs. Reads all of the code, but only the
    /// scales, tables and sparse encodings of the weights. Needs no allocator.
    ///
    /// # Errors
    /// If the program is invalid or the weights are not aligned to 4 bytes.
    pub fn parse(code: B, weights: B) -> Result<Self, ProgramError> {
        let header = check::program(code.as_ref(), Section::Plain(weights.as_ref()))?;
        if !is_aligned(weights.as_ref()) {
            return Err(ProgramError::WeightsAlignment);
        }
        Ok(Self { header, code, weights, packing: None })
    }

    /// Validates a program with weights packed in the layout `packing`. [`Program::run`] cannot run
    /// it; an executor for the same layout runs it without converting the weights.
    #[cfg(feature = "alloc")]
    pub fn parse_packed(code: B, weights: B, packing: Packing) -> Result<Self, ProgramError> {
        let section = Section::packed(weights.as_ref(), packing);
        let header = check::program(code.as_ref(), section)?;
        Ok(Self { header, code, weights, packing: Some(packing) })
    }

    /// Returns the arena size in bytes from the header of a program. Checks only the header.
    ///
    /// # Errors
    /// If the header is invalid or states a different length than that of `code`.
    pub fn stated_arena(code: &[u8]) -> Result<u32, ProgramError> {
        Header::read(code).map(|header| header.arena_bytes)
    }

    /// Returns the layout of the weights, or `None` for the family `mcu`.
    pub fn packing(&self) -> Option<Packing> {
        self.packing
    }

    /// Returns the weights section converted to the layout `packing`; `None` is the family `mcu`.
    ///
    /// # Errors
    /// If the packed section would be many times as large as the weights, or if packed weights of
    /// this program do not unpack to valid weights. Parsing packed weights cannot detect
    /// overlapping ranges or sparse weights of the wrong length.
    #[cfg(feature = "alloc")]
    pub fn pack(&self, packing: Option<Packing>) -> Result<crate::Aligned, ProgramError> {
        let (code, weights) = (self.code(), self.weights.as_ref());
        if self.packing == packing {
            return Ok(crate::Aligned::copied(weights));
        }
        let unpacked = match self.packing {
            None => None,
            Some(of) => {
                let unpacked = packed::unpack(code, weights, of)?;
                check::program(self.code.as_ref(), Section::Plain(unpacked.bytes()))?;
                Some(unpacked)
            }
        };
        match (packing, unpacked) {
            (Some(packing), None) => packed::pack(code, weights, packing),
            (Some(packing), Some(plain)) => packed::pack(code, plain.bytes(), packing),
            (None, Some(plain)) => Ok(plain),
            (None, None) => unreachable!("they are equal"),
        }
    }

    pub(crate) fn code(&self) -> Code<'_> {
        Code { header: self.header, bytes: self.code.as_ref() }
    }

    /// Returns the weights section.
    pub fn weights(&self) -> &[u8] {
        self.weights.as_ref()
    }

    /// Returns the arena size in bytes that [`Program::run`] needs.
    pub fn arena_bytes(&self) -> usize {
        self.header.arena_bytes as usize
    }

    /// Returns the types and sizes of the inputs.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Port> {
        let code = self.code();
        (0..usize::from(self.header.inputs))
            .map(move |index| code.input(index as u16).expect("inputs were checked"))
    }

    /// Returns the types and sizes of the outputs.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = Port> {
        let code = self.code();
        (0..usize::from(self.header.outputs))
            .map(move |index| code.output(index as u16).expect("outputs were checked"))
    }

    /// Returns the number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.header.tensors.into()
    }

    /// Returns a tensor, or `None` if it does not exist.
    pub fn tensor(&self, id: TensorId) -> Option<Tensor> {
        self.code().tensor(id)
    }

    /// Returns the number of steps.
    pub fn step_count(&self) -> usize {
        self.header.steps as usize
    }

    /// Returns the steps in execution order. Each one is decoded on access.
    pub fn steps(&self) -> Steps<'_> {
        Steps(self.code().steps())
    }

    /// Returns the name of a tensor, or `None` if the tensor or its name does not exist.
    pub fn tensor_name(&self, id: TensorId) -> Option<&str> {
        (id < self.header.tensors).then(|| names::name(self.code().names(), id.into())).flatten()
    }

    /// Returns the name of the model node that a step implements, or `None` if it has no name.
    pub fn step_name(&self, index: usize) -> Option<&str> {
        let place = usize::from(self.header.tensors).checked_add(index)?;
        names::name(self.code().names(), place)
    }
}

/// Returns whether `weights` is aligned for i32 and f32.
pub(crate) fn is_aligned(weights: &[u8]) -> bool {
    weights.is_empty() || weights.as_ptr().addr().is_multiple_of(4)
}

/// An iterator over the steps of a [`Program`].
#[derive(Clone, Debug)]
pub struct Steps<'a>(RawSteps<'a>);

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.0.next().and_then(Result::ok)
    }
}
