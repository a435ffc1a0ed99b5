//! Writes the sample bundle of the tests to a file, to add it to the frozen bundles.

use std::error::Error;

#[path = "../tests/sample/mod.rs"]
mod sample;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: freeze FILE")?;
    let sealed = sample::writer().seal()?;
    std::fs::write(path, sealed.to_bytes())?;
    println!("{}", sealed.root());
    Ok(())
}
