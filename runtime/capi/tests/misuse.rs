//! Invalid arguments: each gives an error message, and nothing is written.

mod common;

use std::ffi::{CStr, CString, c_char};
use std::ptr::{dangling_mut, null, null_mut};

use common::*;
use hardtack_capi::HardtackStatus as Status;
use hardtack_capi::*;

/// Expects an argument error whose message contains `words`.
#[track_caller]
fn refused(status: Status, words: &str) {
    assert_eq!(status, Status::Argument, "{}", last());
    assert!(last().contains(words), "{words}: {}", last());
}

#[test]
fn handles_of_another_kind_are_rejected() {
    let (bundle, session) = (bundle("kws_dscnn_i8.tack"), session("kws_dscnn_i8.tack"));
    let wrong_bundle = session.cast::<HardtackBundle>();
    let wrong_session = bundle.cast::<HardtackSession>();
    let (mut made, mut port, mut holds) = (null_mut(), PORT, false);
    let (mut result, mut digest) = (NOTHING, [7u8; 32]);
    let is_session = "session is not a session, or was freed before";
    let is_bundle = "bundle is not a bundle, or was freed before";
    // SAFETY: every handle is live, of any kind, and all other pointers are valid.
    unsafe {
        refused(hardtack_bundle_verify(wrong_bundle), is_bundle);
        refused(hardtack_bundle_digest(wrong_bundle, digest.as_mut_ptr()), is_bundle);
        assert_eq!(digest, [7; 32]);
        assert!(hardtack_bundle_name(wrong_bundle).is_null());
        assert!(hardtack_bundle_label(wrong_bundle, 0).is_null());
        refused(hardtack_session_new(wrong_bundle, null(), &mut made), is_bundle);
        assert!(made.is_null());
        assert_eq!(hardtack_session_input_count(wrong_session), 0);
        assert_eq!(hardtack_session_output_count(wrong_session), 0);
        assert_eq!(hardtack_session_arena_bytes(wrong_session), 0);
        assert!(hardtack_session_isa(wrong_session).is_null());
        assert!(last().contains(is_session), "{}", last());
        refused(hardtack_session_input(wrong_session, 0, &mut port), is_session);
        refused(hardtack_session_output(wrong_session, 0, &mut port), is_session);
        refused(hardtack_session_run(wrong_session, null(), 0), is_session);
        refused(hardtack_session_run_into(wrong_session, null(), 0, null(), 0), is_session);
        refused(hardtack_session_result(wrong_session, 0, &mut result), is_session);
        refused(hardtack_session_check(wrong_session, &mut holds), is_session);
        refused(hardtack_session_reset(wrong_session), is_session);
        let mut count = 1;
        let sample = tensor(HardtackType::I8, &[0; 490]);
        let mut class = CLASS;
        let classes = &mut class;
        refused(hardtack_session_classify(wrong_session, &sample, classes, &mut count), is_session);
        // Freeing them as the wrong kind had no effect.
        hardtack_bundle_free(wrong_bundle);
        assert!(last().contains(is_bundle), "{}", last());
        hardtack_session_free(wrong_session);
        assert!(last().contains(is_session), "{}", last());
        assert_eq!(text(hardtack_bundle_name(bundle)), "kws01");
        assert_eq!(hardtack_session_input_count(session), 1);
        hardtack_bundle_free(bundle);
        hardtack_session_free(session);
    }
}

const PORT: HardtackPort = HardtackPort {
    name: null(),
    dtype: 0,
    rank: 0,
    shape: [0; HARDTACK_MAX_RANK],
    is_quantized: false,
    scale: 0.0,
    zero_point: 0,
};

const CLASS: HardtackClass = HardtackClass { index: 99, label: null(), score: -1.0 };

#[test]
fn null_pointers_are_rejected() {
    let (bundle, session) = (bundle("kws_dscnn_i8.tack"), session("kws_dscnn_i8.tack"));
    let mut sample = tensor(HardtackType::I8, &[0; 490]);
    (sample.rank, sample.shape[0], sample.shape[1], sample.shape[2]) = (3, 49, 10, 1);
    let (mut count, mut class, mut holds) = (1, CLASS, false);
    let mut made = null_mut();
    // SAFETY: pointers are NULL or valid.
    unsafe {
        refused(hardtack_bundle_verify(null()), "bundle is NULL");
        refused(hardtack_bundle_digest(bundle, null_mut()), "digest is NULL");
        refused(hardtack_bundle_copy(null(), 3, null_mut()), "bytes is NULL");
        refused(hardtack_bundle_copy([1, 2, 3].as_ptr(), 3, null_mut()), "bundle is NULL");
        refused(hardtack_session_new(null(), null(), &mut made), "bundle is NULL");
        refused(hardtack_session_new(bundle, null(), null_mut()), "session is NULL");
        refused(hardtack_session_input(session, 0, null_mut()), "port is NULL");
        refused(hardtack_session_output(session, 0, null_mut()), "port is NULL");
        refused(hardtack_session_output(null(), 0, null_mut()), "session is NULL");
        refused(hardtack_session_result(session, 0, null_mut()), "tensor is NULL");
        refused(hardtack_session_run(null_mut(), null(), 0), "session is NULL");
        refused(hardtack_session_run_into(session, &sample, 1, null(), 1), "outputs is NULL");
        refused(hardtack_session_run_into(session, null(), 1, null(), 0), "inputs is NULL");
        refused(hardtack_session_check(session, null_mut()), "holds is NULL");
        refused(hardtack_session_check(null_mut(), &mut holds), "session is NULL");
        refused(hardtack_session_reset(null_mut()), "session is NULL");
        let classify = hardtack_session_classify;
        refused(classify(null_mut(), &sample, &mut class, &mut count), "session is NULL");
        refused(classify(session, null(), &mut class, &mut count), "sample is NULL");
        refused(classify(session, &sample, &mut class, null_mut()), "count is NULL");
        refused(classify(session, &sample, null_mut(), &mut count), "classes is NULL");
        let no_data = HardtackTensor { data: null(), ..sample };
        refused(classify(session, &no_data, &mut class, &mut count), "data of a tensor is NULL");
        assert_eq!((count, class.index), (1, 99));
        // Asking for no classes is not an error.
        count = 0;
        let status = classify(session, &sample, null_mut(), &mut count);
        assert_ne!(status, Status::Argument, "{}", last());
        hardtack_bundle_free(bundle);
        hardtack_session_free(session);
    }
}

#[test]
fn unaligned_pointers_are_rejected() {
    let (bundle, session) = (bundle("kws_dscnn_i8.tack"), session("kws_dscnn_i8.tack"));
    let odd = "is not aligned to";
    let mut room = [0u64; 32];
    let place = room.as_mut_ptr().cast::<u8>().wrapping_add(1);
    let sample = tensor(HardtackType::I8, &[0; 490]);
    let mut count = 1;
    // SAFETY: all reads and writes are within `room`, or through valid pointers.
    unsafe {
        let open = hardtack_bundle_open(frozen("kws_dscnn_i8.tack").as_ptr(), place.cast());
        refused(open, odd);
        refused(hardtack_session_new(bundle, null(), place.cast()), odd);
        refused(hardtack_session_new(bundle, place.cast(), &mut null_mut()), odd);
        refused(hardtack_session_input(session, 0, place.cast()), odd);
        refused(hardtack_session_result(session, 0, place.cast()), odd);
        refused(hardtack_session_run(session, place.cast(), 1), odd);
        refused(hardtack_session_run_into(session, &sample, 1, place.cast(), 1), odd);
        refused(hardtack_session_classify(session, place.cast(), null_mut(), &mut count), odd);
        refused(hardtack_session_classify(session, &sample, place.cast(), &mut count), odd);
        refused(hardtack_session_classify(session, &sample, null_mut(), place.cast()), odd);
        // Functions that take handles reject such pointers too.
        refused(hardtack_bundle_verify(place.cast()), "is not a bundle");
        refused(hardtack_session_reset(place.cast()), "is not a session");
        hardtack_session_free(place.cast());
        assert_eq!(room, [0; 32]);
        hardtack_bundle_free(bundle);
        hardtack_session_free(session);
    }
}

#[test]
fn overflowing_lengths_are_rejected() {
    let session = session("kws_dscnn_i8.tack");
    let sample = tensor(HardtackType::I8, &[0; 490]);
    let mut own = [9u8; 12];
    let mut output = buffer(HardtackType::I8, &mut own);
    let large = "larger than memory";
    let (mut made, some) = (null_mut(), [0u8; 8]);
    // SAFETY: invalid lengths are rejected before anything is read or written.
    unsafe {
        refused(hardtack_bundle_copy(some.as_ptr(), usize::MAX, &mut made), large);
        refused(hardtack_bundle_copy(some.as_ptr(), isize::MAX as usize + 1, &mut made), large);
        for count in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 2] {
            refused(hardtack_session_run(session, &sample, count), large);
            refused(hardtack_session_run_into(session, &sample, count, null(), 0), large);
            refused(hardtack_session_run_into(session, &sample, 1, &output, count), large);
            let (mut class, mut most) = (CLASS, count);
            let sample = &sample;
            refused(hardtack_session_classify(session, sample, &mut class, &mut most), large);
            assert_eq!((class.index, most), (99, count));
        }
        // The range overlaps everything else.
        output.bytes = usize::MAX;
        refused(hardtack_session_run_into(session, &sample, 1, &output, 1), "shares memory with");
        let endless = HardtackTensor { bytes: usize::MAX, ..sample };
        refused(hardtack_session_run_into(session, &endless, 1, null(), 0), large);
        // The number of elements overflows, then their size in bytes.
        let mut given = HardtackTensor { rank: 2, ..sample };
        (given.shape[0], given.shape[1]) = (1 << 33, 1 << 33);
        assert_eq!(hardtack_session_run(session, &given, 1), Status::Mismatch, "{}", last());
        (given.shape[0], given.shape[1]) = (u64::MAX, 490);
        let status = hardtack_session_run(session, &given, 1);
        assert!(status == Status::Argument || status == Status::Mismatch, "{}", last());
        (given.shape[0], given.shape[1]) = ((1 << 63) + 1, 490);
        assert_ne!(hardtack_session_run(session, &given, 1), Status::Ok);
        hardtack_session_free(session);
    }
    assert_eq!(own, [9; 12]);
}

#[test]
fn strings_that_are_not_utf_8_are_rejected() {
    let (bundle, session) = (bundle("kws_dscnn_i8.tack"), session("kws_dscnn_i8.tack"));
    let wrong = CString::new([0xc3, 0x28]).unwrap();
    let mut given = tensor(HardtackType::I8, &[0; 490]);
    let mut own = [9u8; 12];
    let mut output = buffer(HardtackType::I8, &mut own);
    let mut made = null_mut();
    let options = HardtackOptions { isa: wrong.as_ptr(), ..hardtack_options() };
    // SAFETY: all pointers are valid.
    unsafe {
        refused(hardtack_session_new(bundle, &options, &mut made), "options.isa is not UTF-8");
        output.name = wrong.as_ptr();
        let run = hardtack_session_run_into(session, &given, 1, &output, 1);
        refused(run, "name is not UTF-8");
        given.name = wrong.as_ptr();
        refused(hardtack_session_run(session, &given, 1), "name is not UTF-8");
        hardtack_bundle_free(bundle);
        hardtack_session_free(session);
    }
    // File names may be any bytes.
    let mut bundle = null_mut();
    // SAFETY: both pointers are valid.
    let status = unsafe { hardtack_bundle_open(wrong.as_ptr(), &mut bundle) };
    assert_ne!(status, Status::Ok);
    assert!(bundle.is_null());
}

#[test]
fn outputs_that_share_memory_are_rejected() {
    let session = session("kws_dscnn_i8.tack");
    let mut memory = [3u8; 600];
    let start = memory.as_mut_ptr();
    let name = CString::new("probs").unwrap();
    let at = |offset: usize, bytes: usize| HardtackBuffer {
        name: null(),
        dtype: HardtackType::I8 as u32,
        data: start.wrapping_add(offset).cast(),
        bytes,
    };
    let input = |offset: usize| HardtackTensor {
        dtype: HardtackType::I8 as u32,
        data: start.wrapping_add(offset).cast(),
        bytes: 490,
        ..NOTHING
    };
    // SAFETY: all pointers are within `memory`, and overlaps are rejected.
    unsafe {
        for offset in [0, 100, 478, 489] {
            let run = hardtack_session_run_into(session, &input(0), 1, &at(offset, 12), 1);
            refused(run, "output 0 shares memory with input 0");
        }
        let run = hardtack_session_run_into(session, &input(11), 1, &at(0, 12), 1);
        refused(run, "output 0 shares memory with input 0");
        let outputs = [at(500, 12), at(511, 12)];
        let run = hardtack_session_run_into(session, &input(0), 1, outputs.as_ptr(), 2);
        refused(run, "output 1 shares memory with output 0");
        // The arrays of arguments themselves.
        let given = input(0);
        let of_argument =
            HardtackBuffer { data: (&raw const given).cast_mut().cast(), ..at(0, 12) };
        let run = hardtack_session_run_into(session, &given, 1, &of_argument, 1);
        refused(run, "output 0 shares memory with an argument");
        let mut own_name = [0u8; 12];
        own_name[..5].copy_from_slice(b"probs");
        let of_name = HardtackBuffer {
            name: own_name.as_ptr().cast::<c_char>(),
            data: own_name.as_mut_ptr().cast(),
            ..at(0, 12)
        };
        let run = hardtack_session_run_into(session, &given, 1, &of_name, 1);
        refused(run, "output 0 shares memory with an argument");
        // Adjacent memory is valid, and so are results of the session as inputs.
        let named = HardtackBuffer { name: name.as_ptr(), ..at(490, 12) };
        let run = hardtack_session_run_into(session, &input(0), 1, &named, 1);
        assert_eq!(run, Status::Ok, "{}", last());
        hardtack_session_free(session);
    }
    assert_eq!(memory[..490], [3; 490]);
    assert_eq!(memory[502..], [3; 98]);
}

#[test]
fn options_are_initialized_for_callers_of_other_releases() {
    let least = std::mem::offset_of!(HardtackOptions, memory_limit);
    let whole = size_of::<HardtackOptions>();
    for size in [least, whole, whole + 24] {
        let mut options = [0xaau8; 256];
        // SAFETY: `options` has more than `size` bytes.
        let status = unsafe { hardtack_options_init(options.as_mut_ptr().cast(), size) };
        assert_eq!(status, HardtackStatus::Ok);
        assert!(options[size..].iter().all(|byte| *byte == 0xaa), "{size}");
        let stated = usize::from_ne_bytes(options[..size_of::<usize>()].try_into().unwrap());
        assert_eq!(stated, size.min(whole));
        assert!(options[stated..size].iter().all(|byte| *byte == 0), "{size}");
    }
    // SAFETY: nothing is written for a null pointer and for a size that is too small.
    unsafe {
        refused(hardtack_options_init(null_mut(), whole), "options is NULL");
        refused(hardtack_options_init([0usize; 1].as_mut_ptr().cast(), least - 1), "at least");
    }
}

#[test]
fn options_of_other_sizes_and_values_are_checked() {
    let bundle = bundle("kws_dscnn_i8.tack");
    let mut made = null_mut();
    let usual = hardtack_options();
    let whole = size_of::<HardtackOptions>();
    // SAFETY: the bundle is open until the last line. Options have at least as many bytes as their
    // size states.
    unsafe {
        // The options of the first release.
        let least = std::mem::offset_of!(HardtackOptions, memory_limit);
        for size in [0, 1, least - 1] {
            let options = HardtackOptions { size, ..usual };
            let status = hardtack_session_new(bundle, &options, &mut made);
            refused(status, "initialize it with hardtack_options()");
        }
        // The options of a later release, with fields that this one does not know.
        let mut later = [0usize; 16];
        (&raw const usual).copy_to_nonoverlapping(later.as_mut_ptr().cast(), 1);
        for size in [whole + 1, size_of_val(&later), usize::MAX] {
            later[0] = size;
            let status = hardtack_session_new(bundle, later.as_ptr().cast(), &mut made);
            refused(status, "this library supports at most");
        }
        // Uninitialized memory.
        let mut garbage = [0xaau8; size_of::<HardtackOptions>()];
        garbage[..size_of::<usize>()].copy_from_slice(&whole.to_ne_bytes());
        let mut aligned = usual;
        (&raw mut aligned).cast::<u8>().copy_from_nonoverlapping(garbage.as_ptr(), whole);
        let status = hardtack_session_new(bundle, &raw const aligned, &mut made);
        refused(status, "options.keep_state is neither true nor false");
        for threads in [1025, 4_000_000_000, u32::MAX] {
            let options = HardtackOptions { threads, ..usual };
            let status = hardtack_session_new(bundle, &options, &mut made);
            refused(status, "use 1 to 1024");
        }
        assert!(made.is_null());
        hardtack_bundle_free(bundle);
    }
}

/// No number aborts the process, and invalid ones are errors.
#[test]
fn numbers_out_of_range_are_rejected() {
    let session = session("kws_dscnn_i8.tack");
    let (mut port, mut result) = (PORT, NOTHING);
    // SAFETY: the session lives until the last line, and all other pointers are valid.
    unsafe {
        for index in [1, 7, usize::MAX] {
            assert_eq!(hardtack_session_input(session, index, &mut port), Status::Argument);
            assert_eq!(hardtack_session_output(session, index, &mut port), Status::Argument);
            assert_eq!(hardtack_session_result(session, index, &mut result), Status::Argument);
        }
        for dtype in [0, 14, u32::MAX] {
            let given = HardtackTensor { dtype, ..tensor(HardtackType::I8, &[0; 490]) };
            refused(hardtack_session_run(session, &given, 1), "is not a HardtackType");
            refused(
                hardtack_session_run_into(session, &given, 1, null(), 0),
                "is not a HardtackType",
            );
        }
        let given = HardtackTensor { rank: u32::MAX, ..tensor(HardtackType::I8, &[0; 490]) };
        refused(hardtack_session_run(session, &given, 1), "dimensions");
        let many = [tensor(HardtackType::I8, &[0; 490]); 200];
        let run = hardtack_session_run_into(session, many.as_ptr(), 200, null(), 0);
        assert_eq!(run, Status::Mismatch, "{}", last());
        assert_ne!(hardtack_session_run(session, many.as_ptr(), 200), Status::Ok);
        hardtack_session_free(session);
        hardtack_session_free(null_mut());
        hardtack_bundle_free(null_mut());
    }
    assert!(!dangling_mut::<u8>().is_null());
    // SAFETY: the version is a NUL-terminated string.
    assert!(!unsafe { CStr::from_ptr(hardtack_version()) }.is_empty());
}
