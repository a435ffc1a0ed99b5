//! Converts a small model, opens the bundle and runs it.
//!
//!     cargo run --release --example quickstart

use std::path::Path;

use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::{ConvertOptions, NoProgress, convert};

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/keyword_spotting");
    let bundles = tempfile::tempdir()?;
    let output = bundles.path().join("quickstart.tack");

    // On the development machine: convert ONNX to a bundle.
    convert(&folder.join("kws_dscnn.onnx"), &output, &ConvertOptions::default(), &mut NoProgress)?;

    // On the device: map the file, verify its digests, and run the model.
    let bundle = Bundle::open(&output)?;
    bundle.verify()?;
    let mut session = Session::new(&bundle)?;
    let features = Tensor::new(&[1, 49, 10, 1], vec![0.5f32; 490]).expect("490 features");
    let outputs = session.run(&[("mfcc", &features)])?;
    for (name, tensor) in outputs.iter() {
        println!("{name} {:?}: {:.3?}", tensor.shape(), tensor.to_f32());
    }
    Ok(())
}
