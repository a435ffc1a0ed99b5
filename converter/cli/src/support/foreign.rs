//! Recognizes files of other frameworks by their bytes, without executing them, and advises how to
//! export them to ONNX.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// The number of bytes that are read from each end of a file.
const LOOK: u64 = 1 << 16;

/// The kind of a file that is not an ONNX model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The name of the kind with its article; completes "FILE: is …".
    pub is: &'static str,
    /// What the user can do.
    pub advice: &'static str,
}

const BUNDLE: Kind = Kind {
    is: "a Hardtack bundle already",
    advice: "show its content with `hardtack inspect`, or give the ONNX file that it was converted \
             from",
};
/// The input of [`crate::unpack`].
pub const TRANSPORT: Kind = Kind {
    is: "a compressed bundle",
    advice: "decompress it first: `hardtack decompress FILE.tackz -o OUT.tack`",
};
const TFLITE: Kind = Kind {
    is: "a TensorFlow Lite model",
    advice: "export it with `python -m tf2onnx.convert --tflite MODEL.tflite --output MODEL.onnx \
             --opset 18`",
};
const HDF5: Kind = Kind {
    is: "an HDF5 file, a format of Keras models",
    advice: "export it with `python -c \"import keras; keras.models.load_model('MODEL.h5')\
             .export('MODEL.onnx', format='onnx')\"`",
};
const KERAS: Kind = Kind {
    is: "a Keras model",
    advice: "export it with `python -c \"import keras; keras.models.load_model('MODEL.keras')\
             .export('MODEL.onnx', format='onnx')\"`",
};
const TORCHSCRIPT: Kind = Kind {
    is: "a TorchScript model",
    advice: "export it with `python -c \"import torch; torch.onnx.export(torch.jit.load('MODEL.pt'), \
             (torch.zeros(1, 3, 224, 224),), 'MODEL.onnx', dynamo=False)\"`, with an input of the \
             model's shape",
};
const TORCH: Kind = Kind {
    is: "a PyTorch checkpoint, which has weights or a pickled module but no graph",
    advice: "load it in the program that defines the network, and call `torch.onnx.export(model, \
             (example_input,), 'MODEL.onnx', dynamo=True)`",
};
const PICKLE: Kind = Kind {
    is: "a Python pickle, which can execute code when it is loaded",
    advice: "for scikit-learn, export it in the program that created it: `skl2onnx.to_onnx(model, \
             sample_input).SerializeToString()`, and write that to MODEL.onnx",
};
const COMPRESSED: Kind =
    Kind { is: "compressed data, such as a joblib model", advice: PICKLE.advice };
const SAVED_MODEL: Kind = Kind {
    is: "a TensorFlow SavedModel",
    advice: "export it with `python -m tf2onnx.convert --saved-model FOLDER --output MODEL.onnx \
             --opset 18`",
};
const GRAPH_DEF: Kind = Kind {
    is: "a frozen TensorFlow graph, or another protobuf that is not ONNX",
    advice: "export it with `python -m tf2onnx.convert --graphdef MODEL.pb --inputs NAME:0 \
             --outputs NAME:0 --output MODEL.onnx`",
};
const ARRAYS: Kind = Kind {
    is: "an archive of NumPy arrays",
    advice: "give an ONNX model; arrays are for --inputs and --data",
};
const SAFETENSORS: Kind = Kind {
    is: "a safetensors file, which has weights but no graph",
    advice: "export the model that uses them with `torch.onnx.export(model, (example_input,), \
             'MODEL.onnx', dynamo=True)`, or with `optimum-cli export onnx`",
};
const PICTURE_OR_SOUND: Kind = Kind {
    is: "an image or an audio file",
    advice: "give an ONNX model; run a bundle on this file with `hardtack run`",
};

/// Returns the kind of a file or folder; `None` for ONNX models and unknown files.
pub fn kind(path: &Path) -> Option<Kind> {
    if path.is_dir() {
        return path.join("saved_model.pb").exists().then_some(SAVED_MODEL);
    }
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut first = Vec::new();
    file.by_ref().take(LOOK).read_to_end(&mut first).ok()?;
    let mut last = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(LOOK))).ok()?;
    file.take(LOOK).read_to_end(&mut last).ok()?;
    kind_of(&first, &last, length)
}

/// Returns the kind of a file with these first and last bytes and this length in bytes.
fn kind_of(first: &[u8], last: &[u8], length: u64) -> Option<Kind> {
    let has = |text: &str| {
        let text = text.as_bytes();
        [first, last].iter().any(|part| part.windows(text.len()).any(|window| window == text))
    };
    match first {
        _ if first.starts_with(&hardtack_bundle::MAGIC) => Some(BUNDLE),
        _ if first.starts_with(&hardtack_transport::MAGIC) => Some(TRANSPORT),
        _ if first.get(4..8) == Some(b"TFL3") => Some(TFLITE),
        [0x89, b'H', b'D', b'F', ..] => Some(HDF5),
        [b'P', b'K', 3, 4, ..] if has("data.pkl") && has("constants.pkl") => Some(TORCHSCRIPT),
        [b'P', b'K', 3, 4, ..] if has("data.pkl") => Some(TORCH),
        [b'P', b'K', 3, 4, ..] if has("config.json") => Some(KERAS),
        [b'P', b'K', 3, 4, ..] => Some(ARRAYS),
        // Older PyTorch checkpoints begin with this pickled number.
        [0x80, 2, 0x8a, 10, 0x6c, 0xfc, ..] => Some(TORCH),
        [0x80, 2..=5, ..] => Some(PICKLE),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]
        | [0x1f, 0x8b, ..]
        | [b'B', b'Z', b'h', ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..] => Some(COMPRESSED),
        [0x89, b'P', b'N', b'G', ..]
        | [0xff, 0xd8, 0xff, ..]
        | [b'R', b'I', b'F', b'F', ..]
        | [b'G', b'I', b'F', b'8', ..]
        | [b'B', b'M', ..]
        | [b'I', b'I', 42, 0, ..]
        | [b'M', b'M', 0, 42, ..] => Some(PICTURE_OR_SOUND),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(ARRAYS),
        // Version 1 of a SavedModel. ONNX has its version in the same field: 3 or more.
        [8, 1, 0x12, ..] => Some(SAVED_MODEL),
        [0x0a, ..] if has("node") || has("Const") || has("Placeholder") => Some(GRAPH_DEF),
        [l0, l1, l2, l3, 0, 0, 0, 0, b'{', ..]
            if u64::from(u32::from_le_bytes([*l0, *l1, *l2, *l3])) < length =>
        {
            Some(SAFETENSORS)
        }
        _ => None,
    }
}

/// Returns whether a file begins like an ONNX model: with a format version of 3 or more.
pub fn looks_like_onnx(path: &Path) -> bool {
    let mut start = [0; 3];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && matches!(start, [8, 3..=99, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a | 0x42])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<Kind> {
        kind_of(bytes, bytes, bytes.len() as u64)
    }

    #[test]
    fn files_are_recognized_by_their_bytes() {
        assert_eq!(of(b"\x1c\0\0\0TFL3\0\0"), Some(TFLITE));
        assert_eq!(of(b"\x89HDF\r\n\x1a\n"), Some(HDF5));
        assert_eq!(of(b"PK\x03\x04..archive/data.pkl"), Some(TORCH));
        assert_eq!(of(b"PK\x03\x04..m/data.pkl..m/constants.pkl"), Some(TORCHSCRIPT));
        assert_eq!(of(b"PK\x03\x04..x.npy"), Some(ARRAYS));
        assert_eq!(of(b"\x80\x04\x95sklearn"), Some(PICKLE));
        assert_eq!(of(b"\x78\x9c...."), Some(COMPRESSED));
        assert_eq!(of(b"\x08\x01\x12\x90serve"), Some(SAVED_MODEL));
        assert_eq!(of(b"\x10\0\0\0\0\0\0\0{\"a\":[]}........"), Some(SAFETENSORS));
        assert_eq!(of(&hardtack_bundle::MAGIC), Some(BUNDLE));
    }

    #[test]
    fn onnx_models_and_unknown_files_have_no_kind() {
        assert_eq!(of(b"\x08\x07\x12\x07pytorch"), None);
        assert_eq!(of(b""), None);
        assert_eq!(of(b"hello"), None);
    }
}
