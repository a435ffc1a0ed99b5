//! Windowed operators, and operators that interpolate or transform.

use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use super::Maker;

impl Maker {
    fn sizes(&mut self, rank: usize, most: usize) -> Vec<u32> {
        (0..rank).map(|_| 1 + self.random.below(most) as u32).collect()
    }

    fn padding(&mut self, rank: usize) -> Padding {
        let mut border = || (0..rank).map(|_| self.random.below(4) as u32).collect::<Vec<_>>();
        let (before, after) = (border(), border());
        match self.random.below(6) {
            0 => Padding::Valid,
            1 => Padding::SameUpper,
            2 => Padding::SameLower,
            3 => Padding::ExplicitCeil(before, after),
            _ => Padding::Explicit(before, after),
        }
    }

    pub(super) fn window(&mut self) {
        match self.random.below(8) {
            0..3 => self.conv(),
            3 | 4 => self.pool(),
            5 => self.resize(),
            6 => self.grid(),
            _ => self.transform(),
        }
    }

    /// Returns an image and a window with its layout.
    fn image(&mut self) -> (ValueId, Window) {
        let layouts = [ImageLayout::Nchw, ImageLayout::Nhwc, ImageLayout::Chw, ImageLayout::Hwc];
        let layout = self.random.pick(&layouts);
        let batch = matches!(layout, ImageLayout::Nchw | ImageLayout::Nhwc);
        let first = matches!(layout, ImageLayout::Nchw | ImageLayout::Chw);
        let rank = 1 + self.random.below(3);
        let (x, shape) = self.real(rank + 1 + batch as usize);
        let channels = if first { shape[batch as usize] } else { shape[shape.len() - 1] } as u32;
        let window = Window {
            layout,
            kernel: self.sizes(rank, 4),
            strides: self.sizes(rank, 3),
            dilations: if self.random.one_in(3) { self.sizes(rank, 3) } else { vec![1; rank] },
            padding: self.padding(rank),
            input_channels: channels,
            output_channels: channels,
        };
        (x, window)
    }

    fn conv(&mut self) {
        let (x, mut window) = self.image();
        let input = window.input_channels;
        let groups = match self.random.below(4) {
            0 => input.max(1),
            1 => self.random.pick(&[2, 4]),
            _ => 1,
        };
        window.output_channels = match self.random.below(4) {
            0 => input,
            _ => groups * (1 + self.random.below(5) as u32),
        };
        let layouts = [KernelLayout::Oihw, KernelLayout::Hwio, KernelLayout::Ohwi];
        let kernel_layout = self.random.pick(&layouts);
        let (mut o, mut i) = match kernel_layout {
            KernelLayout::Oihw => (window.output_channels, input / groups.max(1)),
            _ => (window.output_channels / groups.max(1), input),
        };
        if self.random.one_in(10) {
            std::mem::swap(&mut o, &mut i);
        }
        let spatial = window.kernel.iter().map(|size| i64::from(*size));
        let (o, i) = (i64::from(o), i64::from(i));
        let shape: Vec<i64> = match kernel_layout {
            KernelLayout::Oihw => [o, i].into_iter().chain(spatial).collect(),
            KernelLayout::Hwio => spatial.chain([i, o]).collect(),
            KernelLayout::Ohwi => [o].into_iter().chain(spatial).chain([i]).collect(),
        };
        let kernel = self.value(DType::F32, &shape);
        let bias =
            if self.random.one_in(2) { vec![] } else { vec![i64::from(window.output_channels)] };
        let bias = self.value(DType::F32, &bias);
        let operator = if self.random.one_in(3) {
            let output_padding =
                window.kernel.iter().map(|_| self.random.below(3) as u32).collect();
            Operator::ConvTranspose(ConvTranspose { window, kernel_layout, groups, output_padding })
        } else {
            Operator::Conv(Conv { window, kernel_layout, groups })
        };
        self.add(operator, &[x, kernel, bias]);
    }

    fn pool(&mut self) {
        let (x, mut window) = self.image();
        if self.random.one_in(10) {
            window.output_channels = self.random.below(40) as u32;
        }
        let operator = if self.random.one_in(2) {
            let index_dtype = self.random.one_in(2).then_some(DType::I64);
            Operator::MaxPool(MaxPool { window, index_dtype })
        } else {
            let (count_include_pad, average) = (self.random.one_in(2), self.random.one_in(2));
            Operator::SumPool(SumPool { window, count_include_pad, average })
        };
        self.add(operator, &[x]);
    }

    fn resize(&mut self) {
        let rank = self.random.below(4);
        let (x, shape) = self.real(rank);
        if self.random.one_in(3) {
            let scales = shape.iter().map(|_| self.random.below(4) as u64).collect();
            return self.add(Operator::NearestUpsample(scales), &[x]);
        }
        use CoordinateTransform::*;
        use Interpolation::*;
        let coordinates = [
            HalfPixel,
            AlignCorners,
            Asymmetric,
            PytorchHalfPixel,
            HalfPixelSymmetric,
            TfHalfPixelForNn,
        ];
        let kinds = [
            Linear,
            NearestFloor,
            NearestRoundPreferCeil,
            Cubic,
            NearestRoundPreferFloor,
            NearestCeil,
        ];
        let by_size = self.random.one_in(2);
        let count = if self.random.one_in(8) { shape.len() + 1 } else { shape.len() };
        let operand = if by_size {
            let sizes: Vec<i64> = (0..count).map(|_| self.size()).collect();
            crate::Tensor::new(&[count], sizes)
        } else {
            let scales = [0.25f32, 0.5, 1.0, 1.0, 1.5, 2.0, 3.0, -1.0, 0.0, f32::INFINITY];
            let scales: Vec<f32> = (0..count).map(|_| self.random.pick(&scales)).collect();
            crate::Tensor::new(&[count], scales)
        };
        let operand = self.constant(operand.expect("a list"));
        let operator = Operator::Resize(Resize {
            coordinates: self.random.pick(&coordinates),
            interpolation: self.random.pick(&kinds),
            scales_input: (!by_size).then_some(1),
            sizes_input: by_size.then_some(1),
            cubic_coefficient: self.random.pick(&[-0.75, -0.5]),
            exclude_outside: self.random.one_in(2),
        });
        self.add(operator, &[x, operand]);
    }

    fn grid(&mut self) {
        let rank = 3 + self.random.below(3);
        let (x, shape) = self.real(rank);
        let mut grid = self.shape(rank);
        grid[0] = shape[0];
        grid[rank - 1] = rank as i64 - 2;
        let grid = self.value(DType::F32, &grid);
        use GridInterpolation::*;
        use GridPadding::*;
        let operator = Operator::GridSample(GridSample {
            interpolation: self.random.pick(&[Bilinear, Nearest, Bicubic]),
            padding: self.random.pick(&[Zeros, Border, Reflection]),
            align_corners: self.random.one_in(2),
        });
        self.add(operator, &[x, grid]);
    }

    fn transform(&mut self) {
        let rank = 1 + self.random.below(4);
        let mut shape = self.shape(rank);
        shape[rank - 1] = 2;
        let x = self.value(DType::F32, &shape);
        let axis = self.random.below(rank) as u32;
        let operator = if self.random.one_in(2) {
            Operator::Fft(Fft { axis, inverse: self.random.one_in(2) })
        } else {
            let frame = 1 + self.random.below(6) as u64;
            let window = self.random.one_in(2).then(|| {
                let size = 1 + self.random.below(7) as i64;
                let window = self.tensor(DType::F32, &[size]);
                self.store(window)
            });
            Operator::Stft(Stft { axis, frame, stride: self.random.below(4) as u64, window })
        };
        self.add(operator, &[x]);
    }
}
