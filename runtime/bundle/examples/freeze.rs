//! Writes the bundle of the tests' sample to a file, to be kept with the frozen bundles.

use std::error::Error;

#[path = "../tests/sample/mod.rs"]
mod sample;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("name the file to write")?;
    let sealed = sample::writer().seal()?;
    std::fs::write(path, sealed.to_bytes())?;
    println!("{}", sealed.root());
    Ok(())
}
