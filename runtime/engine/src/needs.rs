//! Estimates the compute and memory that a program needs.

use hardtack_kernels::{Isa, strided};

use crate::packed;
use crate::program::{CopyLayout, Port, PortType, Step, Tensor, Window};
use crate::{Program, ProgramError};

/// The bytes of a decoded and lowered step, rounded up.
const STEP_BYTES: u64 = 512;

impl<B: AsRef<[u8]>> Program<B> {
    /// Returns the number of operations of one inference: the multiply-accumulates (MACs) of
    /// convolutions, the window elements of pooling, and the elements read and written by other
    /// steps. Saturates.
    pub fn operations(&self) -> u64 {
        self.steps().map(|step| self.operations_of(&step)).fold(0, u64::saturating_add)
    }

    fn operations_of(&self, step: &Step) -> u64 {
        let tensor = |id| self.tensor(id).expect("tensors of steps were checked");
        let window = |window: &Window, output: &Tensor| {
            let kernel = u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
            kernel.saturating_mul(output.elements().into())
        };
        let copied = |copy: &CopyLayout| {
            copy.dims.iter().fold(1, |all: u64, &dim| all.saturating_mul(dim.into()))
        };
        if let Some(tile) = step.tile(tensor) {
            let (input, output) = (tensor(tile.conv.input), tensor(tile.conv.output));
            let rows = Tensor { height: tile.rows, ..output };
            let depth = u64::from(input.channels / tile.conv.groups);
            return window(&tile.conv.window, &rows).saturating_mul(depth);
        }
        match step {
            Step::MaxPool(step) => window(&step.window, &tensor(step.output)),
            Step::AveragePool(step) => window(&step.window, &tensor(step.output)),
            Step::Quantize(step) => copied(&step.copy),
            Step::Dequantize(step) => copied(&step.copy),
            step => {
                let named = step.reads().chain(step.writes());
                named.map(|id| u64::from(tensor(id).elements())).fold(0, u64::saturating_add)
            }
        }
    }

    /// The number of bytes of all outputs of one run.
    pub fn output_bytes(&self) -> u64 {
        let bytes = |port: Port| match port.element {
            PortType::F32 => 4 * u64::from(port.elements),
            PortType::I8 | PortType::U8 => port.elements.into(),
        };
        self.outputs().map(bytes).fold(0, u64::saturating_add)
    }

    /// Returns a lower bound for the bytes that an executor for `isa` allocates: repacked weights,
    /// the arena and the steps. Does not allocate.
    ///
    /// # Errors
    /// [`ProgramError::WeightsRepeated`] if the packed weights would be many times as large as the
    /// weights section.
    pub fn memory_bytes(&self, isa: Isa) -> Result<u64, ProgramError> {
        let code = self.code();
        let kernels = strided::Kernels::for_isa(isa).map(strided::Kernels::packing);
        let plain = u64::from(code.header.weights_bytes);
        let weights = match (self.packing(), kernels) {
            (given, wanted) if given == wanted => 0,
            (None, Some(wanted)) => packed::length(code, wanted)?,
            (Some(_), Some(wanted)) => packed::length(code, wanted)?.saturating_add(plain),
            (_, None) => plain,
        };
        let steps = (self.step_count() as u64).saturating_mul(STEP_BYTES);
        Ok(weights.saturating_add(self.arena_bytes() as u64).saturating_add(steps))
    }
}
