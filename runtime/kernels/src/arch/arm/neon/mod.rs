//! Kernels for ARMv7 with NEON: 16-bit products of bytes, added in pairs.

mod assembly;

use core::hint::black_box;

use self::assembly::{
    Ending, Window, hardtack_neon_finish, hardtack_neon_run, hardtack_neon_window,
};
use crate::Isa;
use crate::packed::Packing;
use crate::packed::depthwise::ROWS;
use crate::strided::{
    ConvBlock, DepthwiseRows, Epilogue, Kernels, ProductKernels, floats, portable,
};

/// The number of columns or channels of a block.
const WIDTH: usize = 16;
/// The number of weights of a step.
const STEP: usize = 4 * WIDTH;

// Compiled without NEON, because Rust has no stable way to enable it for these functions.
portable::portable!(words, [], 0);

pub(crate) static NEON: Kernels = Kernels {
    isa: Isa::Neon,
    packing: Packing::NeonDot,
    conv,
    depthwise,
    peak,
    add: words::add,
    multiply: words::multiply,
    rescale: words::rescale,
    lookup: portable::lookup,
    quantize: words::quantize,
    interleave: portable::interleave,
    max_pool: words::max_pool,
    average_pool: words::average_pool,
    resize: words::resize,
    softmax: words::softmax,
};

pub(crate) const PRODUCTS: ProductKernels =
    ProductKernels { extent: words::extent, affine: words::affine, multiply: product };

/// See [`Kernels::peak`].
///
/// # Safety
/// The CPU must support NEON.
unsafe fn peak(rounds: usize) -> u64 {
    const STEPS: usize = 16;
    let (activations, weights) = ([3u8; 4 * STEPS], [5u8; STEP * STEPS]);
    let mut parts = [0; 2 * WIDTH];
    for _ in 0..rounds {
        let (activations, weights) = (black_box(&activations), black_box(&weights));
        // SAFETY: the caller guarantees NEON. The arrays have `4 * STEPS` activations, `STEP *
        // STEPS` weights and 32 partial sums.
        unsafe {
            hardtack_neon_run(parts.as_mut_ptr(), activations.as_ptr(), weights.as_ptr(), STEPS);
        }
    }
    black_box(parts);
    (rounds * STEPS * STEP) as u64
}

/// Returns partial sums initialized with the bias.
///
/// # Safety
/// `block` must be aligned to 4 and have 16 readable i32.
unsafe fn bias(block: *const u8) -> [i32; 2 * WIDTH] {
    let mut parts = [0; 2 * WIDTH];
    for (column, parts) in parts.chunks_exact_mut(2).enumerate() {
        // SAFETY: `column` is below 16, and the caller guarantees 16 readable, aligned i32.
        parts[0] = unsafe { block.cast::<i32>().add(column).read() };
    }
    parts
}

/// Returns the parameters of the epilogue without a residual.
///
/// # Safety
/// `block` must point to 16 biases followed by 16 scales.
unsafe fn ending(block: *const u8, epilogue: Epilogue) -> Ending {
    Ending {
        // SAFETY: the caller guarantees that the scales follow the 16 biases.
        scales: unsafe { block.add(4 * WIDTH).cast() },
        residual: core::ptr::null(),
        residual_zero_point: 0.0,
        residual_scale: 0.0,
        zero_point: (epilogue.zero_point as i8).into(),
        low: (epilogue.low as i8).into(),
        high: (epilogue.high as i8).into(),
    }
}

/// Applies the epilogue and writes the first `channels` outputs.
///
/// # Safety
/// The CPU must support NEON. `ending.scales` must have 16 readable f32, and `ending.residual`, if
/// not null, 16 readable bytes. `channels` must be at most 16, and that many bytes must be writable
/// at `output`.
unsafe fn epilogue(parts: &[i32; 2 * WIDTH], ending: &Ending, output: *mut u8, channels: usize) {
    // SAFETY: the caller guarantees NEON and the pointers in `ending`, and `parts` has 32 elements.
    // 16 bytes are written to `output` only if `channels` is 16, otherwise to the array.
    unsafe {
        if channels == WIDTH {
            return hardtack_neon_finish(parts.as_ptr(), ending, output);
        }
        let mut all = [0; WIDTH];
        hardtack_neon_finish(parts.as_ptr(), ending, all.as_mut_ptr());
        output.copy_from_nonoverlapping(all.as_ptr(), channels);
    }
}

/// # Safety
/// NEON and the contract of [`ConvBlock`], with `rows` null.
unsafe fn conv(block: &ConvBlock) {
    // SAFETY: the caller guarantees NEON and the contract of `ConvBlock`.
    unsafe { pixels::<false>(block) };
}

/// # Safety
/// NEON and the contract of [`ConvBlock`], with `rows`.
unsafe fn product(block: &ConvBlock) {
    // SAFETY: the caller guarantees NEON and the contract of `ConvBlock` with `rows`.
    unsafe { pixels::<true>(block) };
}

/// Computes all pixels of a block. `REAL` selects f32 outputs.
///
/// # Safety
/// NEON and the contract of [`ConvBlock`], with `rows` if `REAL`.
unsafe fn pixels<const REAL: bool>(block: &ConvBlock) {
    // SAFETY: reads 16 biases and 16 scales, for each run `steps` steps of 64 weights, which all
    // belong to the block, and exactly `4 · steps` bytes of each run of each pixel. Per pixel,
    // `channels`, at most 16, outputs are written and residuals read. The contract of `ConvBlock`
    // permits these accesses.
    unsafe {
        let bias = bias(block.weights);
        let mut ending = ending(block.weights, block.epilogue);
        ending.residual_zero_point = block.residual_zero_point;
        ending.residual_scale = block.residual_scale;
        let mut addends = [0u8; WIDTH];
        for index in 0..block.pixels {
            let pixel = block.input.add(*block.input_offsets.add(index) as usize);
            let mut parts = bias;
            let mut weights = block.weights.add(8 * WIDTH);
            for down in 0..block.runs[0] {
                for across in 0..block.runs[1] {
                    let run = pixel.add(down * block.run_step[0] + across * block.run_step[1]);
                    hardtack_neon_run(parts.as_mut_ptr(), run, weights, block.steps);
                    weights = weights.add(block.steps * STEP);
                }
            }
            if REAL {
                let sums = core::array::from_fn(|c| parts[2 * c].wrapping_add(parts[2 * c + 1]));
                floats::<WIDTH>(block, index, &sums);
                continue;
            }
            if !block.residual.is_null() {
                let from = block.residual.add(*block.residual_offsets.add(index) as usize);
                from.copy_to_nonoverlapping(addends.as_mut_ptr(), block.channels);
                ending.residual = addends.as_ptr();
            }
            let output = block.output.add(*block.output_offsets.add(index) as usize);
            epilogue(&parts, &ending, output, block.channels);
        }
    }
}

/// # Safety
/// NEON and the contract of [`DepthwiseRows`].
unsafe fn depthwise(block: &DepthwiseRows) {
    // SAFETY: reads 16 biases and 16 scales, the steps of the weights, and for each column of each
    // window a vector of 16 bytes in each of the four rows of each group. Writes `channels` bytes,
    // at most 16, per output. The contract of `DepthwiseRows` permits these accesses.
    unsafe {
        let bias = bias(block.weights);
        let ending = ending(block.weights, block.epilogue);
        let window = Window {
            rows: block.rows.as_ptr(),
            groups: block.kernel[0].div_ceil(ROWS),
            columns: block.kernel[1],
            step: block.column_step,
            weights: block.weights.add(8 * WIDTH),
        };
        for row in 0..block.height {
            for index in 0..block.count {
                let mut parts = bias;
                let at = row * block.row_step + index * block.window_step;
                hardtack_neon_window(parts.as_mut_ptr(), &window, at);
                let output = row * block.output_row_step + index * block.output_step;
                epilogue(&parts, &ending, block.output.add(output), block.channels);
            }
        }
    }
}
