//! A bundle with every kind of section and a graph with every operator. The newest frozen bundle
//! is a copy of it: after a change to it, freeze a new bundle.
#![allow(dead_code, reason = "each test uses a part of it")]

use hardtack_bundle::golden::{Content, Generator, GoldenBuilder, GoldenTensor};
use hardtack_bundle::manifest::*;
use hardtack_bundle::process::*;
use hardtack_bundle::{
    DType, Defaults, Digest, Family, InputDefault, Manifest, Readings, SectionKind, Writer,
};
use heapless::Vec as Bounded;

pub mod operators;

/// Collects values into a bounded list.
fn list<T: Clone, const N: usize>(items: &[T]) -> Bounded<T, N> {
    items.iter().cloned().collect()
}

/// A manifest that uses every field.
pub fn manifest() -> Manifest<'static> {
    let port = |name, dtype, shape, layout, quantization| Port {
        name,
        dtype,
        shape,
        layout,
        quantization,
    };
    let state_shape = list(&[Extent::Fixed(1), Extent::Fixed(4)]);
    Manifest {
        name: "sample",
        version: "3-rc1",
        inputs: list(&[
            port(
                "image",
                DType::F32,
                list(&[
                    Extent::Named("batch"),
                    Extent::Fixed(2),
                    Extent::Fixed(2),
                    Extent::Fixed(3),
                ]),
                Layout::Nhwc,
                None,
            ),
            port("state", DType::I8, state_shape.clone(), Layout::Plain, None),
        ]),
        outputs: list(&[
            port(
                "scores",
                DType::I8,
                list(&[Extent::Named("batch"), Extent::Fixed(3)]),
                Layout::Plain,
                Some(Quantization { scale: 0.00390625, zero_point: -128 }),
            ),
            port("next state", DType::I8, state_shape, Layout::Nchw, None),
        ]),
        states: list(&[State { input: 1, output: 1 }]),
        provenance: Provenance {
            source_digest: Digest::of(b"model.onnx").0,
            source_bytes: 123_456_789_012,
            producer: "pytorch 2.9",
            opset: 17,
            converter: "0.1.0",
            options: list(&[Entry { name: "int8", value: "true" }]),
        },
        figures: list(&[Figure { name: "top-1", value: 0.75, samples: 400, source: "eval.npz" }]),
        float_operators: list(&[Entry { name: "Softmax", value: "1" }]),
        arena_bytes: 1 << 33,
        needs_float: true,
        prepared: true,
    }
}

/// Preprocessing of an image.
pub fn preprocess() -> Preprocess {
    Preprocess::Image(Image {
        height: 224,
        width: 192,
        fit: Fit::CentreCrop { short_side: 256 },
        colour: Colour::Bgr,
        order: ChannelOrder::Nhwc,
        mean: list(&[123.675, 116.28, 103.53]),
        deviation: list(&[58.5]),
    })
}

/// Postprocessing of a classifier.
pub fn postprocess() -> Postprocess {
    Postprocess::Classify { softmax: true, skip: 1 }
}

/// The default value of the second input.
pub fn defaults() -> Defaults<'static> {
    list(&[InputDefault { input: 1, shape: list(&[1, 4]), elements: &[1, 2, 3, 255] }])
}

/// How two readings agreed.
pub fn readings() -> Readings<'static> {
    Readings {
        values: 3000,
        samples: 3,
        source: "random",
        difference: 0.5,
        evaluated: list(&[Entry { name: "node \"m\"", value: "no native implementation" }]),
    }
}

/// The labels of three classes.
pub const LABELS: [&str; 3] = ["tench", "", "Schäferhund"];

/// Two golden cases, with tensors of every kind of content.
pub fn golden() -> Vec<u8> {
    let half = 0.5f32.to_le_bytes();
    let image = GoldenTensor {
        name: "image",
        dtype: DType::U8,
        shape: &[1, 2, 2, 3],
        content: Content::Stored(b"abcdefghijkl"),
        tolerance: 0.0,
    };
    let scores = GoldenTensor {
        name: "scores",
        dtype: DType::I8,
        shape: &[1, 3],
        content: Content::Stored(&[1, 255, 3]),
        tolerance: 0.0,
    };
    let loss = GoldenTensor {
        name: "loss",
        dtype: DType::F32,
        shape: &[],
        content: Content::Stored(&half),
        tolerance: 0.001,
    };
    let generator = Generator { seed: 42, low: 0.0, high: 256.0 };
    let noise = GoldenTensor { content: Content::Generated(generator), ..image };
    let some = Content::Sampled { step: 2, bytes: &[1, 3] };
    let some = GoldenTensor { content: some, ..scores };
    let mut golden = GoldenBuilder::new();
    golden.case(&[image], &[scores]).unwrap().case(&[noise], &[some, loss]).unwrap();
    golden.finish()
}

/// Placeholder bytes for sections that other crates define.
fn counting(length: u8) -> Vec<u8> {
    (1..=length).collect()
}

/// A bundle with every kind of section.
pub fn writer() -> Writer<'static> {
    let mut writer = Writer::new();
    writer.manifest(&manifest()).unwrap();
    writer.graph(&operators::graph()).unwrap();
    for program in 0..2 {
        writer.section(SectionKind::Program(program), counting(70)).unwrap();
        for (length, family) in (60u8..).zip(Family::ALL) {
            writer.section(SectionKind::Weights { family, program }, counting(length)).unwrap();
        }
    }
    writer.section(SectionKind::Constants, counting(64)).unwrap();
    writer.labels(LABELS).unwrap();
    writer.preprocess(&preprocess()).unwrap();
    writer.postprocess(&postprocess()).unwrap();
    writer.section(SectionKind::Golden, golden()).unwrap();
    writer.section(SectionKind::Notices, &b"Licensed to be loaded for ever.\n"[..]).unwrap();
    writer.section(SectionKind::Signature(0), counting(96)).unwrap();
    writer.defaults(&defaults()).unwrap();
    writer.readings(&readings()).unwrap();
    let private = SectionKind::Other { kind: 0x8001, family: 7, index: 9 };
    writer.section(private, counting(5)).unwrap();
    writer
}

/// A smaller bundle, for tests that change every bit.
pub fn small() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.manifest(&manifest()).unwrap();
    writer.section(SectionKind::Program(0), counting(3)).unwrap();
    let weights = SectionKind::Weights { family: Family::Mcu, program: 0 };
    writer.section(weights, counting(64)).unwrap();
    writer.labels(LABELS).unwrap();
    writer.section(SectionKind::Notices, &b""[..]).unwrap();
    writer.section(SectionKind::Signature(0), counting(8)).unwrap();
    writer.finish().unwrap()
}
