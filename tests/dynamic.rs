//! Dynamic quantization of a transformer: runs large matmuls in INT8, and checks the embeddings.

mod shared;

use hardtack::{Bundle, Session};
use hardtack_converter::{ConvertOptions, NoProgress, arrays, convert};
use shared::applications::topics;

#[test]
fn sentences_keep_their_topics() {
    let Some(assets) = shared::assets() else {
        return;
    };
    let folder = assets.join("models/minilm_l6_v2_w8");
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("model.tack");
    let options = ConvertOptions { dynamic: true, ..ConvertOptions::default() };
    let report = convert(&folder.join("model.onnx"), &output, &options, &mut NoProgress).unwrap();
    let in_float = report.warnings.iter().find(|warning| warning.contains("runs in float"));
    assert_eq!(in_float, None);
    let bundle = Bundle::open(&output).unwrap();
    let graph = bundle.container().unwrap().graph().unwrap().unwrap();
    let count = |name| graph.nodes.iter().filter(|node| node.operator.name() == name).count();
    // Six matmuls per layer become integer. Two multiply activations, and stay in float.
    assert_eq!((count("DynamicMatMul"), count("Einsum")), (36, 12));
    let mut session = Session::new(&bundle).unwrap();
    assert!(hardtack::golden::check(&bundle, &mut session).unwrap().holds());

    for number in 0..3 {
        let arrays = arrays::read_npz(&folder.join(format!("io_{number}.npz"))).unwrap();
        let (expected, inputs): (Vec<_>, Vec<_>) =
            arrays.iter().partition(|(name, _)| name == "last_hidden_state");
        let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = session.run(&inputs).unwrap();
        let pairs = expected[0].1.to_f32().into_iter().zip(outputs[0].1.to_f32());
        let (signal, noise) = pairs.fold((0f64, 0f64), |(signal, noise), (a, b)| {
            (signal + f64::from(a).powi(2), noise + f64::from(a - b).powi(2))
        });
        let quality = 10.0 * (signal / noise).log10();
        assert!((26.0..50.0).contains(&quality), "{number}: {quality} dB");
    }
    // The float model classifies 345 of them correctly.
    let top1 = topics(&mut session, &assets.join("data/agnews400")).unwrap();
    assert!((343..=347).contains(&top1.right), "{top1}");
}
