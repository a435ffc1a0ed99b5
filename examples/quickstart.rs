//! The library in a few lines: convert a small model, open the bundle, run it.
//!
//!     cargo run --release --example quickstart

use std::path::Path;

use hardtack::{Bundle, Session, Tensor};
use hardtack_converter::{Options, Silent, convert};

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/keyword_spotting");
    let bundles = tempfile::tempdir()?;
    let output = bundles.path().join("quickstart.tack");

    // On your computer: ONNX in, bundle out.
    convert(&folder.join("kws_dscnn.onnx"), &output, &Options::default(), &mut Silent)?;

    // On the device: map the file, check its digests, run.
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
