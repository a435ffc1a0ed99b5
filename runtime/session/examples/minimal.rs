//! Opens a bundle, runs it on zeros and prints the first values of each output. Named dimensions
//! are set to 1.
//!
//!     cargo run --release -p hardtack --example minimal -- model.tack

use std::error::Error;

use hardtack::{Bundle, Extent, Port, Session, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: minimal BUNDLE")?;
    let bundle = Bundle::open(path)?;
    let mut session = Session::new(&bundle)?;

    let inputs: Vec<(String, Tensor)> =
        session.inputs().iter().map(zeros).collect::<Option<_>>().ok_or("an input is too large")?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (&**name, t)).collect();
    for (name, tensor) in session.run(&inputs)? {
        let first: Vec<f32> = tensor.to_f32().into_iter().take(8).collect();
        println!("{name} {:?}: {first:?}", tensor.shape());
    }
    Ok(())
}

fn zeros(port: &Port) -> Option<(String, Tensor)> {
    let size = |extent: &Extent| match extent {
        Extent::Fixed(size) => *size,
        Extent::Named(_) => 1,
    };
    let shape: Vec<usize> = port.shape.iter().map(size).collect();
    Some((port.name.clone(), Tensor::zeros(port.dtype, &shape)?))
}
