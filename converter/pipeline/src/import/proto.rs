//! Reads an ONNX file as protobuf, including external tensors.

use std::collections::HashSet;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::node::Node;
use super::{ImportError, tensor};
use crate::contained_path::{self, Outside};

/// The maximum size of a file in bytes, which is the limit of protobuf.
const MAX_FILE: u64 = 1 << 31;
/// The maximum bytes of external tensors.
const MAX_EXTERNAL: u64 = 1 << 34;

/// A model as read from its file, with the elements of all tensors in `raw_data`.
pub(super) struct ModelFile {
    pub model: ModelProto,
    /// The SHA-256 digest of the file, followed by the bytes of external tensors.
    pub digest: [u8; 32],
    /// The number of those bytes.
    pub bytes: u64,
    /// The first outputs of the nodes that compute 4-bit integers, which tract would compute with
    /// 8 bits.
    pub four_bits: HashSet<String>,
}

/// Reads a model and checks its tensors.
pub(super) fn read(path: &Path) -> Result<ModelFile, ImportError> {
    let io =
        |error: std::io::Error| ImportError::Read { path: path.into(), problem: error.to_string() };
    let file = std::fs::File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length > MAX_FILE {
        return Err(ImportError::TooLarge { path: path.into(), bytes: length, limit: MAX_FILE });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io)?;
    let not_onnx = |problem: String| ImportError::NotOnnx { path: path.into(), problem };
    let mut model = ModelProto::decode(&bytes[..]).map_err(|error| not_onnx(error.to_string()))?;
    if model.graph.is_none() {
        return Err(not_onnx("it contains no graph".into()));
    }
    let mut digest = Sha256::new();
    digest.update(&bytes);
    let mut external = External { digest, ..External::in_folder_of(path) };
    let length = bytes.len() as u64;
    drop(bytes);
    affordable(path, &mut model, length, &external)?;
    let mut four_bits = HashSet::new();
    if let Some(graph) = &mut model.graph {
        find_four_bits(&graph.node, &graph.initializer, None, &mut four_bits);
        each_tensor(graph, &mut |tensor| complete(tensor, &mut external))?;
    }
    for function in &mut model.functions {
        find_four_bits(&function.node, &[], None, &mut four_bits);
        each_node_tensor(&mut function.node, &mut |tensor| complete(tensor, &mut external))?;
    }
    let bytes = length + external.bytes;
    Ok(ModelFile { model, digest: external.digest.finalize().into(), bytes, four_bits })
}

/// Checks that a model's tensors fit in the memory limit, before external tensors are read. During
/// import, each tensor is in memory at least twice.
fn affordable(
    path: &Path,
    model: &mut ModelProto,
    length: u64,
    external: &External<'_>,
) -> Result<(), ImportError> {
    let mut external_bytes = 0u64;
    let mut measure = |tensor: &mut TensorProto| {
        if is_external(tensor) {
            let place = external.place(&tensor.name, &entries(tensor))?;
            external_bytes = external_bytes.saturating_add(place.length);
        }
        Ok(())
    };
    if let Some(graph) = &mut model.graph {
        each_tensor(graph, &mut measure)?;
    }
    for function in &mut model.functions {
        each_node_tensor(&mut function.node, &mut measure)?;
    }
    let (bytes, memory_bytes) =
        (length.saturating_add(external_bytes), crate::process::memory_bytes());
    if external_bytes > MAX_EXTERNAL || bytes > memory_bytes / 2 {
        return Err(ImportError::TooMuchData { path: path.into(), bytes, memory_bytes });
    }
    Ok(())
}

/// Returns the keys and values that describe where the data of a tensor are.
fn entries(tensor: &TensorProto) -> Vec<(&str, &str)> {
    let entries = tensor.external_data.iter();
    entries.map(|entry| (entry.key.as_str(), entry.value.as_str())).collect()
}

fn is_external(proto: &TensorProto) -> bool {
    proto.data_location == Some(DataLocation::External as i32)
}

/// Rejects what tract would read with another type: nodes that compute 4-bit integers, and tensors
/// of types that it lacks.
pub(super) fn check_types(
    model: &mut ModelProto,
    four_bits: &HashSet<String>,
) -> Result<(), ImportError> {
    fn first<'n>(nodes: &'n [NodeProto], found: &HashSet<String>) -> Option<&'n NodeProto> {
        nodes.iter().find_map(|node| {
            let has = node.output.first().is_some_and(|output| found.contains(output));
            let graphs = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
            let inner = || graphs.into_iter().find_map(|graph| first(&graph.node, found));
            if has { Some(node) } else { inner() }
        })
    }
    let functions = model.functions.iter().map(|function| &function.node);
    let mut graphs = model.graph.iter().map(|graph| &graph.node).chain(functions);
    if let Some(node) = graphs.find_map(|nodes| first(nodes, four_bits)) {
        return Err(node.wrong("4-bit integers are supported only for weights; quantize to 8 bits"));
    }
    let mut check = |proto: &mut TensorProto| {
        tensor::check(proto)
            .map_err(|problem| ImportError::Malformed(format!("tensor {:?} {problem}", proto.name)))
    };
    match &mut model.graph {
        Some(graph) => each_tensor(graph, &mut check),
        None => Ok(()),
    }
}

/// Finds the nodes that compute 4-bit integers. Constants of 4 bits are tracked because they may be
/// zero points. `outer` has the names of the enclosing graph.
fn find_four_bits(
    nodes: &[NodeProto],
    initializers: &[TensorProto],
    outer: Option<&Narrow<'_>>,
    found: &mut HashSet<String>,
) {
    let narrow = |kind: i32| [DataType::Int4 as i32, DataType::Uint4 as i32].contains(&kind);
    let stated = |node: &NodeProto, name| {
        node.int(name).and_then(|kind| kind.try_into().ok()).is_some_and(narrow)
    };
    let constants = initializers.iter().filter(|tensor| narrow(tensor.data_type));
    let names = constants.map(|tensor| tensor.name.as_str()).collect();
    let mut all = Narrow { names, outer };
    for node in nodes {
        let quantizes = node.op_type == "QuantizeLinear";
        let by_zero_point = node.given(2).is_some_and(|name| all.has(name));
        if quantizes && (stated(node, "output_dtype") || by_zero_point) {
            found.extend(node.output.first().cloned());
        }
        let held = node.attribute.iter().flat_map(|attribute| &attribute.t);
        let made = held.clone().any(|tensor| narrow(tensor.data_type)) || stated(node, "to");
        let read = node.input.iter().any(|name| all.has(name));
        if made || (read && !quantizes && node.op_type != "DequantizeLinear") {
            all.names.extend(node.output.iter().map(String::as_str));
        }
        for attribute in &node.attribute {
            for graph in attribute.g.iter().chain(&attribute.graphs) {
                find_four_bits(&graph.node, &graph.initializer, Some(&all), found);
            }
        }
    }
}

/// The names of 4-bit values in a graph and its enclosing graphs.
struct Narrow<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Narrow<'a>>,
}

impl Narrow<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.has(name))
    }
}

fn complete(proto: &mut TensorProto, external: &mut External<'_>) -> Result<(), ImportError> {
    if is_external(proto) {
        proto.raw_data = external.read(&proto.name, &entries(proto))?;
        proto.data_location = None;
        proto.external_data.clear();
    }
    tensor::normalize(proto)
        .map_err(|problem| ImportError::Malformed(format!("tensor {:?} {problem}", proto.name)))
}

type Visit<'a> = dyn FnMut(&mut TensorProto) -> Result<(), ImportError> + 'a;

fn each_tensor(graph: &mut GraphProto, visit: &mut Visit<'_>) -> Result<(), ImportError> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    each_node_tensor(&mut graph.node, visit)
}

fn each_node_tensor(nodes: &mut [NodeProto], visit: &mut Visit<'_>) -> Result<(), ImportError> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            each_tensor(graph, visit)?;
        }
    }
    Ok(())
}

/// The external data files of a model.
pub(super) struct External<'a> {
    folder: &'a Path,
    digest: Sha256,
    bytes: u64,
}

/// The location of an external tensor.
struct Place {
    path: PathBuf,
    offset: u64,
    length: u64,
}

impl<'a> External<'a> {
    /// The files in the folder of a model.
    pub(super) fn in_folder_of(path: &'a Path) -> External<'a> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        External { folder: folder.unwrap_or(Path::new(".")), digest: Sha256::new(), bytes: 0 }
    }

    /// Returns the location of an external tensor, which must be within a regular file.
    fn place(&self, tensor: &str, entries: &[(&str, &str)]) -> Result<Place, ImportError> {
        let value = |key: &str| {
            let entry = entries.iter().find(|(name, _)| *name == key);
            entry.map(|(_, value)| *value)
        };
        let wrong = |problem: String| ImportError::ExternalData { tensor: tensor.into(), problem };
        let location = value("location").ok_or_else(|| wrong("it names no file".into()))?;
        let number = |key: &str| match value(key) {
            None => Ok(None),
            Some(text) => text
                .parse::<u64>()
                .map(Some)
                .map_err(|_| wrong(format!("its {key} {text:?} is not a number"))),
        };
        let path = self.resolve(location).map_err(wrong)?;
        let unreadable = |error: std::io::Error| wrong(format!("{location:?}: {error}"));
        let metadata = path.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            // Opening a pipe would block until another process writes to it.
            return Err(wrong(format!("{location:?} is not a file")));
        }
        let length = metadata.len();
        let offset = number("offset")?.unwrap_or(0);
        let left = length.checked_sub(offset);
        let left = left.ok_or_else(|| wrong(format!("{location:?} has only {length} bytes")))?;
        let wanted = number("length")?.unwrap_or(left);
        if wanted > left {
            return Err(wrong(format!("{location:?} has only {length} bytes")));
        }
        Ok(Place { path, offset, length: wanted })
    }

    /// Reads the data of an external tensor.
    pub(super) fn read(
        &mut self,
        tensor: &str,
        entries: &[(&str, &str)],
    ) -> Result<Vec<u8>, ImportError> {
        let Place { path, offset, length } = self.place(tensor, entries)?;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| ImportError::ExternalData {
            tensor: tensor.into(),
            problem: format!("{} cannot be read: {error}", path.display()),
        })?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.digest.update(&bytes);
        Ok(bytes)
    }

    /// Resolves a location to a path, which must be in the model's folder after following links.
    fn resolve(&self, location: &str) -> Result<PathBuf, String> {
        contained_path::resolve(self.folder, Path::new(location)).map_err(|error| match error {
            Outside::Elsewhere => format!("{location:?} is not in the model's folder"),
            Outside::Unreadable(error) => format!("{location:?} cannot be read: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::attribute_proto::AttributeType;
    use tract_onnx::pb::{AttributeProto, StringStringEntryProto};

    fn with_external(location: &str, offset: &str) -> Vec<u8> {
        with_external_of(location, offset, 8)
    }

    fn with_external_of(location: &str, offset: &str, length: u64) -> Vec<u8> {
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        let tensor = TensorProto {
            name: "w".into(),
            dims: vec![2],
            data_type: DataType::Float as i32,
            data_location: Some(DataLocation::External as i32),
            external_data: vec![
                entry("location", location),
                entry("offset", offset),
                entry("length", &length.to_string()),
            ],
            ..TensorProto::default()
        };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn external_tensors_are_read_only_from_the_models_folder() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret.bin"), [0; 64]).unwrap();
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        let bytes: Vec<u8> = [9f32, 1.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(folder.join("w.bin"), bytes).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret.bin", folder.join("link.bin")).unwrap();

        let path = folder.join("model.onnx");
        std::fs::write(&path, with_external("w.bin", "4")).unwrap();
        let source = read(&path).unwrap();
        let graph = source.model.graph.unwrap();
        assert_eq!(tensor::load(&graph.initializer[0]).unwrap().to_f32(), [1.0, 2.0]);
        assert_eq!(source.bytes, std::fs::metadata(&path).unwrap().len() + 8);

        for (location, offset, problem) in [
            ("../secret.bin", "0", "not in the model's folder"),
            ("/etc/passwd", "0", "not in the model's folder"),
            #[cfg(unix)]
            ("link.bin", "0", "not in the model's folder"),
            ("none.bin", "0", "cannot be read"),
            ("w.bin", "5", "has only 12 bytes"),
            ("w.bin", "18446744073709551615", "has only 12 bytes"),
            ("w.bin", "-1", "is not a number"),
        ] {
            std::fs::write(&path, with_external(location, offset)).unwrap();
            let message = read(&path).err().expect("rejected").to_string();
            assert!(message.contains(problem), "{location}: {message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let path = folder.path().join("model.onnx");
        for location in ["pipe", "."] {
            std::fs::write(&path, with_external(location, "0")).unwrap();
            let message = read(&path).err().expect("rejected").to_string();
            assert!(message.contains("is not a file"), "{message}");
        }
    }

    #[test]
    fn tensors_larger_than_memory_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let length = crate::process::memory_bytes();
        // A sparse file takes no disk space.
        let file = std::fs::File::create(folder.path().join("hole.bin")).unwrap();
        file.set_len(length).unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, with_external_of("hole.bin", "0", length)).unwrap();
        let error = read(&path).err().expect("rejected");
        assert!(
            matches!(error, ImportError::TooMuchData { bytes, .. } if bytes > length),
            "{error}"
        );
    }

    #[test]
    fn four_bit_values_are_rejected_in_every_form() {
        let four_bits = |name: &str| TensorProto {
            name: name.into(),
            data_type: DataType::Int4 as i32,
            int32_data: vec![1],
            dims: vec![1],
            ..TensorProto::default()
        };
        let node = |operator: &str, inputs: &[&str], output: &str| NodeProto {
            op_type: operator.into(),
            name: output.into(),
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        };
        let with = |mut node: NodeProto, name: &str, t, g| {
            let name = name.into();
            node.attribute.push(AttributeProto { name, t, g, ..AttributeProto::default() });
            node
        };
        let quantize = || node("QuantizeLinear", &["x", "s", "z"], "q");
        let constant = || with(node("Constant", &[], "z"), "value", Some(four_bits("")), None);
        let inner = GraphProto { node: vec![quantize()], ..GraphProto::default() };
        let by_type = AttributeProto {
            name: "output_dtype".into(),
            i: DataType::Int4 as i64,
            r#type: AttributeType::Int as i32,
            ..AttributeProto::default()
        };
        let stated = NodeProto { attribute: vec![by_type], ..quantize() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.onnx");
        let read = |node: Vec<NodeProto>, initializer: Vec<TensorProto>| {
            let graph = GraphProto { node, initializer, ..GraphProto::default() };
            let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
            std::fs::write(&path, model.encode_to_vec()).unwrap();
            let mut file = super::read(&path)?;
            check_types(&mut file.model, &file.four_bits)
        };
        for (nodes, initializers) in [
            (vec![quantize()], vec![four_bits("z")]),
            (vec![constant(), quantize()], vec![]),
            (vec![node("Identity", &["y"], "z"), quantize()], vec![four_bits("y")]),
            (
                vec![with(node("If", &["b"], "r"), "then_branch", None, Some(inner))],
                vec![four_bits("z")],
            ),
            (vec![stated], vec![]),
        ] {
            let message = read(nodes, initializers).expect_err("rejected").to_string();
            assert!(message.contains("4-bit integers are supported only"), "{message}");
        }
        // A 4-bit weight, and an 8-bit value with another zero point.
        let weight = node("DequantizeLinear", &["w", "s", "y"], "r");
        assert!(read(vec![weight, quantize()], vec![four_bits("w"), four_bits("y")]).is_ok());
    }

    #[test]
    fn other_files_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.onnx");
        for bytes in [&b""[..], b"not a model", b"\x08\x07"] {
            std::fs::write(&path, bytes).unwrap();
            let message = read(&path).err().expect("rejected").to_string();
            assert!(message.contains("is not an ONNX model"), "{message}");
        }
    }
}
