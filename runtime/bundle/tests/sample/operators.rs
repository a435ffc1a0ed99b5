//! A graph with every operator of the table. Its computation is not meaningful.

use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

fn symbolic() -> Dim {
    Dim::Expression(vec![
        Token::Symbol(0),
        Token::Value(-1),
        Token::Add(2),
        Token::Divide(2),
        Token::Symbol(1),
        Token::Multiply(2),
        Token::Value(1),
        Token::Maximum(2),
        Token::Value(300),
        Token::Minimum(2),
        Token::Value(1),
        Token::Broadcast(2),
        Token::Value(2),
        Token::GreaterOrEqual,
        Token::Value(1),
        Token::Equal,
    ])
}

fn window() -> Window {
    Window {
        layout: ImageLayout::Nchw,
        kernel: vec![3, 3],
        strides: vec![2, 1],
        dilations: vec![1, 1],
        padding: Padding::Explicit(vec![0, 1], vec![1, 2]),
        input_channels: 8,
        output_channels: 300,
    }
}

fn binaries() -> impl Iterator<Item = Operator> {
    use Binary::*;
    [
        Add,
        Subtract,
        Multiply,
        Divide,
        Remainder,
        Minimum,
        Maximum,
        Power,
        ShiftLeft,
        ShiftRight,
        And,
        Or,
        Xor,
        BitAnd,
        BitOr,
        BitXor,
        Equal,
        NotEqual,
        Less,
        LessOrEqual,
        Greater,
        GreaterOrEqual,
        SubtractFrom,
    ]
    .into_iter()
    .map(Operator::Binary)
}

fn unaries() -> impl Iterator<Item = Operator> {
    use Unary::*;
    [
        Abs,
        Exp,
        Ln,
        PowConst(1.5),
        Square,
        Sqrt,
        Reciprocal,
        ReciprocalSqrt,
        Ceil,
        Floor,
        Round,
        RoundHalfToEven,
        Cos,
        Sin,
        Tan,
        Acos,
        Asin,
        Atan,
        Cosh,
        Sinh,
        Tanh,
        Erf,
        Acosh,
        Asinh,
        Atanh,
        Negate,
        Sign,
        IsInf { positive: true, negative: false },
        IsNan,
        Not,
        BitNot,
        Sigmoid,
        HardSwish,
        LeakyRelu(0.1),
        Silu,
        Gelu,
        GeluApproximate,
    ]
    .into_iter()
    .map(Operator::Unary)
}

fn windows() -> Vec<Operator> {
    let padded = |padding| {
        Operator::MaxPool(MaxPool {
            window: Window { padding, layout: ImageLayout::Nhwc, ..window() },
            index_dtype: None,
        })
    };
    let conv = |layout, kernel_layout| {
        Operator::Conv(Conv { window: Window { layout, ..window() }, kernel_layout, groups: 2 })
    };
    vec![
        conv(ImageLayout::Nchw, KernelLayout::Oihw),
        conv(ImageLayout::Chw, KernelLayout::Hwio),
        conv(ImageLayout::Hwc, KernelLayout::Ohwi),
        Operator::ConvTranspose(ConvTranspose {
            window: window(),
            kernel_layout: KernelLayout::Oihw,
            groups: 1,
            output_padding: vec![0, 1],
        }),
        padded(Padding::Valid),
        padded(Padding::ExplicitCeil(vec![1, 1], vec![0, 0])),
        padded(Padding::SameUpper),
        padded(Padding::SameLower),
        Operator::MaxPool(MaxPool { window: window(), index_dtype: Some(DType::I64) }),
        Operator::SumPool(SumPool { window: window(), count_include_pad: true, average: false }),
    ]
}

fn reductions() -> Vec<Operator> {
    let reduce = |reducer| Operator::Reduce(Reduce { axes: vec![1, 2], reducer });
    let mut operators = vec![
        Operator::Einsum(Einsum { expression: "mk,kn->mn".into(), accumulator: DType::F32 }),
        Operator::Softmax(Softmax { axes: vec![1], logarithm: true }),
        Operator::RmsNorm(RmsNorm { axis: 2, epsilon: 1e-5 }),
        Operator::Lrn(Lrn { alpha: 1e-4, beta: 0.75, bias: 1.0, size: 5 }),
        Operator::CumSum(CumSum { axis: 1, exclusive: true, reverse: false }),
    ];
    operators.extend(
        [
            Reducer::ArgMax { last: true },
            Reducer::ArgMin { last: false },
            Reducer::Maximum,
            Reducer::Minimum,
            Reducer::Product,
            Reducer::Sum,
            Reducer::MeanOfSquares,
            Reducer::All,
            Reducer::Any,
        ]
        .map(reduce),
    );
    operators
}

fn resamplings() -> Vec<Operator> {
    use CoordinateTransform::*;
    let resize = |(coordinates, interpolation)| {
        Operator::Resize(Resize {
            coordinates,
            interpolation,
            scales_input: Some(0),
            sizes_input: None,
            cubic_coefficient: -0.75,
            exclude_outside: true,
        })
    };
    let grid = |(interpolation, padding)| {
        Operator::GridSample(GridSample { interpolation, padding, align_corners: true })
    };
    let mut operators: Vec<_> = [
        (HalfPixel, Interpolation::Linear),
        (AlignCorners, Interpolation::NearestFloor),
        (Asymmetric, Interpolation::NearestRoundPreferCeil),
        (PytorchHalfPixel, Interpolation::Cubic),
        (HalfPixelSymmetric, Interpolation::NearestRoundPreferFloor),
        (TfHalfPixelForNn, Interpolation::NearestCeil),
    ]
    .map(resize)
    .into();
    operators.extend(
        [
            (GridInterpolation::Bilinear, GridPadding::Zeros),
            (GridInterpolation::Nearest, GridPadding::Border),
            (GridInterpolation::Bicubic, GridPadding::Reflection),
        ]
        .map(grid),
    );
    operators.push(Operator::NearestUpsample(vec![1, 1, 2, 2]));
    operators
}

fn arrangements() -> Vec<Operator> {
    let pad = |mode| Operator::Pad(Pad { pads: vec![(0, 0), (1, 300)], mode });
    let scatter = |reduction| Operator::ScatterElements(ScatterElements { axis: 1, reduction });
    vec![
        Operator::AddAxis(1),
        Operator::RemoveAxis(2),
        Operator::MoveAxis((0, 3)),
        Operator::Reshape(Reshape {
            axis: 1,
            from: vec![symbolic()],
            to: vec![Dim::Value(1), symbolic()],
        }),
        Operator::Broadcast(vec![Dim::Value(2), symbolic()]),
        Operator::Slice(Slice { axis: 1, start: Dim::Value(1), end: symbolic() }),
        Operator::DynamicSlice(DynamicSlice { axis: 0, length: symbolic() }),
        Operator::StridedSlice(StridedSlice {
            axes_input: Some(0),
            steps_input: None,
            begin_mask: 1,
            end_mask: -1,
            shrink_axis_mask: 4,
        }),
        Operator::Concat(3),
        pad(PadMode::Constant(0)),
        pad(PadMode::Reflect),
        pad(PadMode::Edge),
        Operator::Tile(vec![Dim::Value(2)]),
        Operator::DynamicTile(vec![symbolic()]),
        Operator::Gather(Gather { axis: 0, output_dtype: Some(DType::F16) }),
        Operator::GatherElements(1),
        Operator::GatherNd(1),
        scatter(ScatterReduction::None),
        scatter(ScatterReduction::Add),
        scatter(ScatterReduction::Multiply),
        scatter(ScatterReduction::Minimum),
        scatter(ScatterReduction::Maximum),
        Operator::ScatterNd(ScatterReduction::None),
        Operator::Range(symbolic()),
        Operator::OneHot(OneHot { axis: 1, depth: 10, off: 0, on: 1 }),
        Operator::TopK(TopK { axis: 1, largest: true, k: symbolic() }),
        Operator::Trilu(true),
        Operator::Downsample(Downsample { axis: 1, stride: -2, modulo: 1 }),
    ]
}

fn rest() -> Vec<Operator> {
    let tree = |aggregate, transform| {
        Operator::TreeEnsemble(TreeEnsemble { targets: 2, aggregate, transform, binary: true })
    };
    let mut operators = vec![
        Operator::Constant(1),
        Operator::Evaluate(vec![1, 2, 3]),
        Operator::Program(1),
        Operator::Select,
        Operator::Fft(Fft { axis: 1, inverse: true }),
        Operator::Stft(Stft { axis: 1, frame: 400, stride: 160, window: Some(0) }),
        Operator::QuantizeLinear(QuantizeLinear { dtype: DType::U8, axis: Some(1) }),
        Operator::DequantizeLinear(DequantizeLinear { dtype: DType::F32, axis: None }),
        Operator::Unpack,
        Operator::DequantizeBlocks(DequantizeBlocks { dtype: DType::F32, axis: 1, block: 300 }),
        Operator::DynamicMatMul(DynamicMatMul { per_row: true }),
        tree(TreeAggregate::Sum, TreeTransform::None),
        tree(TreeAggregate::Average, TreeTransform::Softmax),
        tree(TreeAggregate::Minimum, TreeTransform::Logistic),
        tree(TreeAggregate::Maximum, TreeTransform::SoftmaxZero),
        tree(TreeAggregate::Sum, TreeTransform::Probit),
    ];
    let types = (0..=13).filter_map(DType::from_number);
    operators.extend(types.map(Operator::Cast));
    operators
}

/// Every operator without a body, with every variant of its attributes.
pub fn plain() -> Vec<Operator> {
    let mut operators: Vec<_> = binaries().chain(unaries()).collect();
    operators.extend(windows());
    operators.extend(reductions());
    operators.extend(resamplings());
    operators.extend(arrangements());
    operators.extend(rest());
    operators
}

fn fact() -> Fact {
    Fact { dtype: DType::F32, shape: vec![Dim::symbol(0), Dim::Value(3), symbolic()] }
}

fn node(name: &str, operator: Operator, inputs: &[u32]) -> Node {
    let inputs = inputs.iter().map(|node| ValueId { node: *node, output: 0 }).collect();
    Node { name: name.into(), operator, inputs, outputs: vec![fact()] }
}

/// A body that returns its only input.
fn body() -> Graph {
    Graph {
        nodes: vec![node("x", Operator::Input, &[])],
        inputs: vec![0],
        outputs: vec![ValueId { node: 0, output: 0 }],
        output_names: vec!["y".into()],
        ..Graph::default()
    }
}

fn scan(body: u32, input: ScanInput) -> Operator {
    Operator::Scan(Scan {
        body,
        skip: 1,
        reset_every_turn: true,
        external_state: false,
        inputs: vec![input],
        outputs: vec![ScanOutput {
            slices: Some((0, ScanSlice { axis: 1, chunk: -1 })),
            full_dim: Some(symbolic()),
            last_value: Some(0),
            state: true,
        }],
    })
}

/// A graph with every operator, which passes [`Graph::check`].
pub fn graph() -> Graph {
    let mut nodes = vec![node("input", Operator::Input, &[])];
    for operator in plain() {
        let (name, last) = (format!("{} {}", operator.name(), nodes.len()), nodes.len() as u32 - 1);
        nodes.push(node(&name, operator, &[last]));
    }
    nodes.push(node("full", scan(0, ScanInput::Full), &[0]));
    nodes.push(node("state", scan(1, ScanInput::State), &[0]));
    let slice = ScanInput::Slice(ScanSlice { axis: 0, chunk: 2 });
    nodes.push(node("slice", scan(2, slice), &[0]));
    let branch = |then_body, else_body| {
        Operator::If(If { then_body, then_inputs: vec![0], else_body, else_inputs: vec![0] })
    };
    nodes.push(node("if", branch(3, 4), &[1]));
    let last = nodes.len() as u32 - 1;
    let mut nested = body();
    nested.nodes.push(node("inner", branch(5, 6), &[0]));
    let mut bodies = vec![nested];
    bodies.extend((1..7).map(|_| body()));
    Graph {
        symbols: vec!["batch".into(), "länge".into()],
        constants: vec![
            Constant {
                dtype: DType::F32,
                stored: DType::BF16,
                shape: vec![2, 3],
                offset: 0,
                length: 12,
            },
            Constant {
                dtype: DType::I64,
                stored: DType::I64,
                shape: vec![],
                offset: 16,
                length: 8,
            },
            Constant {
                dtype: DType::Dim,
                stored: DType::Dim,
                shape: vec![2],
                offset: 24,
                length: 7,
            },
        ],
        nodes,
        inputs: vec![0],
        outputs: vec![ValueId { node: last, output: 0 }, ValueId { node: 0, output: 0 }],
        output_names: vec!["result".into(), "echo".into()],
        bodies,
    }
}
