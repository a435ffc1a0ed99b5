//! Tests of the interface from the perspective of a C caller, including misuse.

mod common;

use std::ffi::CString;
use std::path::Path;
use std::ptr::{null, null_mut};

use common::*;
use hardtack_capi::HardtackStatus as Status;
use hardtack_capi::*;

#[test]
fn a_bundle_has_a_name_labels_and_a_digest() {
    let bundle = bundle("kws_dscnn_i8.tack");
    // SAFETY: the bundle is open until the last line, and strings are NUL-terminated.
    unsafe {
        assert_eq!(text(hardtack_bundle_name(bundle)), "kws01");
        assert_eq!(text(hardtack_bundle_label(bundle, 7)), "Stop");
        assert!(hardtack_bundle_label(bundle, 12).is_null());
        assert_eq!(hardtack_bundle_verify(bundle), Status::Ok);
        let mut digest = [0; 32];
        assert_eq!(hardtack_bundle_digest(bundle, digest.as_mut_ptr()), Status::Ok);
        assert_ne!(digest, [0; 32]);
        hardtack_bundle_free(bundle);
    }
    assert_eq!(text(hardtack_version()), env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_inference_returns_the_expected_outputs() {
    let session = session("kws_dscnn_i8.tack");
    let input = [3u8; 490];
    // SAFETY: the session lives until the last line, and all other pointers are valid.
    unsafe {
        assert_eq!(hardtack_session_input_count(session), 1);
        assert_eq!(hardtack_session_output_count(session), 1);
        assert!(hardtack_session_arena_bytes(session) > 0);
        let mut port = std::mem::zeroed();
        assert_eq!(hardtack_session_output(session, 0, &mut port), Status::Ok);
        assert_eq!((text(port.name), port.dtype), ("probs".into(), HardtackType::I8 as u32));
        assert_eq!((port.rank, port.shape[0], port.shape[1]), (2, HARDTACK_ANY, 12));
        assert!(port.is_quantized && port.zero_point == -128 && port.scale == 1.0 / 256.0);

        let mut result = NOTHING;
        assert_eq!(hardtack_session_result(session, 0, &mut result), Status::Argument);
        assert_eq!(last(), "the session has not been run yet");
        let given = tensor(HardtackType::I8, &input);
        assert_eq!(hardtack_session_run(session, &given, 1), Status::Ok, "{}", last());
        assert_eq!(hardtack_session_result(session, 0, &mut result), Status::Ok);
        assert_eq!((result.rank, result.shape[0], result.shape[1]), (2, 1, 12));
        assert_eq!(text(result.name), "probs");
        let answers = std::slice::from_raw_parts(result.data.cast::<i8>(), result.bytes).to_vec();
        assert_eq!(hardtack_session_result(session, 1, &mut result), Status::Argument);

        let mut own = [0i8; 12];
        let mut buffer = HardtackBuffer {
            name: null(),
            dtype: HardtackType::I8 as u32,
            data: own.as_mut_ptr().cast(),
            bytes: 12,
        };
        let run = hardtack_session_run_into(session, &given, 1, &buffer, 1);
        assert_eq!(run, Status::Ok, "{}", last());
        assert_eq!(own[..], answers);
        buffer.bytes = 11;
        let run = hardtack_session_run_into(session, &given, 1, &buffer, 1);
        assert_eq!(run, Status::Mismatch);
        assert!(last().contains("12 elements, but 11"), "{}", last());

        let mut holds = false;
        assert_eq!(hardtack_session_check(session, &mut holds), Status::Ok);
        assert!(holds);
        assert_eq!(hardtack_session_reset(session), Status::Ok);
        hardtack_session_free(session);
    }
}

#[test]
fn batches_and_named_inputs_work() {
    let session = session("kws_dscnn.tack");
    let reals = vec![0.5f32; 2 * 490];
    let name = CString::new("mfcc").unwrap();
    let mut given = NOTHING;
    given.name = name.as_ptr();
    given.dtype = HardtackType::F32 as u32;
    (given.data, given.bytes) = (reals.as_ptr().cast(), 4 * reals.len());
    // SAFETY: the session lives until the last line, and all other pointers are valid.
    unsafe {
        assert_eq!(hardtack_session_run(session, &given, 1), Status::Ok, "{}", last());
        let mut result = NOTHING;
        assert_eq!(hardtack_session_result(session, 0, &mut result), Status::Ok);
        assert_eq!((result.shape[0], result.shape[1], result.bytes), (2, 12, 96));
        // A pointer that is not aligned to 4 bytes.
        given.data = given.data.cast::<u8>().add(1).cast();
        given.bytes = 4 * 490;
        let run = hardtack_session_run_into(session, &given, 1, null(), 0);
        assert_eq!(run, Status::Argument);
        assert!(last().contains("is not aligned to 4 bytes"), "{}", last());
        hardtack_session_free(session);
    }
}

#[test]
fn errors_are_reported_and_nothing_is_written() {
    let mut bundle = std::ptr::dangling_mut::<HardtackBundle>();
    let before = bundle;
    let none = CString::new("/nowhere/none.tack").unwrap();
    // SAFETY: pointers are NULL or valid.
    unsafe {
        assert_eq!(hardtack_bundle_open(null(), &mut bundle), Status::Argument);
        assert_eq!(last(), "path is NULL");
        assert_eq!(hardtack_bundle_open(none.as_ptr(), null_mut()), Status::Argument);
        assert_eq!(hardtack_bundle_open(none.as_ptr(), &mut bundle), Status::File);
        assert!(last().starts_with("/nowhere/none.tack: cannot be read"), "{}", last());
        let bytes = [7u8; 100];
        assert_eq!(hardtack_bundle_copy(bytes.as_ptr(), 100, &mut bundle), Status::Bundle);
        assert_eq!(hardtack_bundle_copy(null(), 100, &mut bundle), Status::Argument);
        assert_eq!(hardtack_bundle_copy(bytes.as_ptr(), 0, &mut bundle), Status::Bundle);
        assert_eq!(bundle, before);
        assert_eq!(hardtack_bundle_verify(null()), Status::Argument);
        assert!(hardtack_bundle_name(null()).is_null());
        assert!(hardtack_bundle_label(null(), 0).is_null());
        hardtack_bundle_free(null_mut());
        hardtack_session_free(null_mut());
        assert_eq!(hardtack_session_input_count(null()), 0);

        let session = session("kws_dscnn_i8.tack");
        assert_eq!(hardtack_session_run(session, null(), 1), Status::Argument);
        assert_eq!(hardtack_session_run(session, null(), 0), Status::Mismatch);
        let bytes = [0u8; 490];
        for (given, status, message) in [
            (tensor(HardtackType::U8, &bytes), Status::Mismatch, "elements of type i8"),
            (tensor(HardtackType::I8, &bytes[..489]), Status::Mismatch, "489 elements"),
            (HardtackTensor { rank: 9, dtype: 2, ..NOTHING }, Status::Argument, "9 dimensions"),
            (HardtackTensor { dtype: 99, ..NOTHING }, Status::Argument, "99 is not a HardtackType"),
            (
                HardtackTensor { bytes: usize::MAX, ..tensor(HardtackType::I8, &bytes) },
                Status::Argument,
                "larger than memory",
            ),
            (NOTHING, Status::Argument, "0 is not a HardtackType"),
            (
                HardtackTensor { name: none.as_ptr(), ..tensor(HardtackType::I8, &bytes[..1]) },
                Status::Mismatch,
                "no input",
            ),
        ] {
            assert_eq!(hardtack_session_run(session, &given, 1), status, "{message}: {}", last());
            assert!(last().contains(message), "{message}: {}", last());
        }
        let mut port = std::mem::zeroed();
        assert_eq!(hardtack_session_input(session, 1, &mut port), Status::Argument);
        hardtack_session_free(session);
    }
}

#[test]
fn options_are_checked() {
    let bundle = bundle("kws_dscnn_i8.tack");
    let mut made = null_mut();
    let isa = CString::new("scalar").unwrap();
    let unknown = CString::new("mmx").unwrap();
    // SAFETY: the bundle is open until the last line, and all other pointers are valid.
    unsafe {
        let mut options = HardtackOptions { isa: isa.as_ptr(), threads: 0, ..hardtack_options() };
        assert_eq!(hardtack_session_new(bundle, &options, &mut made), Status::Ok, "{}", last());
        assert_eq!(text(hardtack_session_isa(made)), "scalar");
        hardtack_session_free(made);
        options.isa = unknown.as_ptr();
        assert_eq!(hardtack_session_new(bundle, &options, &mut made), Status::Argument);
        assert_eq!(last(), "mmx is not an instruction set");
        options.size = 0;
        assert_eq!(hardtack_session_new(bundle, &options, &mut made), Status::Argument);
        assert!(last().contains("hardtack_options()"), "{}", last());
        hardtack_bundle_free(bundle);
    }
}

#[test]
fn limits_and_cancellation_reach_the_session() {
    let bundle = bundle("kws_dscnn_i8.tack");
    let mut session = null_mut();
    // SAFETY: handles are freed once and not used afterwards, and all other pointers are valid.
    unsafe {
        let usual = hardtack_options();
        for limited in [
            HardtackOptions { memory_limit: 100, ..usual },
            HardtackOptions { operation_limit: 100, ..usual },
        ] {
            assert_eq!(hardtack_session_new(bundle, &limited, &mut session), Status::Limit);
            assert!(last().contains("beyond the limit of 100"), "{}", last());
        }
        // A program that was built before limits existed passes a smaller struct.
        let old = HardtackOptions {
            size: std::mem::offset_of!(HardtackOptions, memory_limit),
            memory_limit: 1,
            ..usual
        };
        assert_eq!(hardtack_session_new(bundle, &old, &mut session), Status::Ok, "{}", last());

        let mut canceller = null_mut();
        assert_eq!(hardtack_session_canceller(session, &mut canceller), Status::Ok);
        let input = [0u8; 490];
        let input = tensor(HardtackType::I8, &input);
        assert_eq!(hardtack_canceller_cancel(canceller), Status::Ok);
        assert_eq!(hardtack_session_run(session, &input, 1), Status::Stopped);
        assert_eq!(last(), "the inference was canceled");
        assert_eq!(hardtack_canceller_reset(canceller), Status::Ok);
        assert_eq!(hardtack_session_run(session, &input, 1), Status::Ok, "{}", last());
        hardtack_session_free(session);
        assert_eq!(hardtack_canceller_cancel(canceller), Status::Ok);
        hardtack_canceller_free(canceller);
        hardtack_canceller_free(null_mut());
        assert_eq!(hardtack_canceller_cancel(null()), Status::Argument);
        hardtack_bundle_free(bundle);
    }
}

#[test]
fn damage_is_detected_unless_the_caller_opts_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen/programs");
    let mut bytes = std::fs::read(folder.join("kws_dscnn_i8.tack")).unwrap();
    let sound = hardtack_bundle::Bundle::parse(&bytes).unwrap();
    let weights = sound.weights(0, hardtack_bundle::Family::Mcu).unwrap();
    let at = weights.as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[at + 200] ^= 4;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let path = CString::new(file.path().to_str().unwrap()).unwrap();
    let (mut bundle, mut session) = (null_mut(), null_mut());
    // SAFETY: handles are freed once and not used afterwards, and all other pointers are valid.
    unsafe {
        assert_eq!(hardtack_bundle_open(path.as_ptr(), &mut bundle), Status::Ok);
        assert_eq!(hardtack_session_new(bundle, null(), &mut session), Status::Bundle);
        assert!(last().contains("damaged"), "{}", last());
        hardtack_bundle_free(bundle);
        assert_eq!(hardtack_bundle_open_unverified(path.as_ptr(), &mut bundle), Status::Ok);
        assert_eq!(hardtack_session_new(bundle, null(), &mut session), Status::Ok, "{}", last());
        hardtack_session_free(session);
        hardtack_bundle_free(bundle);
    }
}
