use std::io::Write as _;

use zip::write::SimpleFileOptions;

use std::path::PathBuf;

use super::*;
use crate::testing::Net;

/// Returns a graph with one input of shape [1, 4].
fn graph() -> Graph {
    let mut net = Net::new();
    let x = net.input(&[1, 4]);
    net.finish(&[&x]).graph
}

fn read(path: &Path, limit: usize) -> Result<Samples, Error> {
    let graph = graph();
    let signature = Signature::of(&graph, None);
    let preprocessor = Preprocessor::identity(&signature.inputs[0].manifest_port()?);
    Samples::read(path, limit, &graph, &signature, &preprocessor)
}

/// Writes an archive of u8 arrays: name, shape in the header, and number of elements actually
/// stored.
fn archive(folder: &Path, arrays: &[(&str, &str, usize)]) -> PathBuf {
    let path = folder.join("data.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, shape, count) in arrays {
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(text.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
        zip.write_all(&vec![7; *count]).unwrap();
    }
    zip.finish().unwrap();
    path
}

#[test]
fn arrays_without_a_matching_input_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    // The first array is shorter than its header states.
    let path = archive(folder.path(), &[("other", "(1000000000000,)", 3), ("x", "(5, 4)", 20)]);
    let samples = read(&path, 3).unwrap();
    assert_eq!(samples.inputs.count(), 3);
    assert_eq!(samples.inputs.sample(2).unwrap()[0].shape(), [1, 4]);
}

#[test]
fn arrays_of_the_wrong_shape_are_rejected_before_reading() {
    let folder = tempfile::tempdir().unwrap();
    let name = Signature::of(&graph(), None).inputs[0].name.clone();
    for (array, shape, count, expected) in [
        ("x", "(2, 5)", 10, "takes the shape [1, 4], but got [5]"),
        ("x", "(2, 0)", 0, "has no elements"),
        ("x", "()", 1, "is a scalar"),
        (&name, "(2, 5)", 10, "has samples of shape [5], but the model expects [1, 4]"),
        (&name, "(2, 4)", 7, "ends after 7 of its 8 bytes"),
        ("y", "(2, 4)", 8, "nor an array \"x\" of samples; it has y [2, 4]"),
    ] {
        let path = archive(folder.path(), &[(array, shape, count)]);
        let error = read(&path, 9).err().unwrap().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn cyclic_symbolic_links_are_followed_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.png"), b"").unwrap();
    for name in ["up", "again", "and-again"] {
        std::os::unix::fs::symlink(folder.path(), folder.path().join(name)).unwrap();
    }
    assert_eq!(files(folder.path()).unwrap().len(), 1);
}
