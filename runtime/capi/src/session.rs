//! Session handles.

use std::ffi::{CString, c_char};
use std::ops::Range;
use std::ptr;

use hardtack::{Bundle, Outputs, Port, Session, Tensor, View, ViewMut, golden};

use crate::bundle::HardtackBundle;
use crate::classify::Classifier;
use crate::handle::{Handle, borrow, borrow_mut, free, give};
use crate::options::HardtackOptions;
use crate::pointer::{Target, owned, slice, text};
use crate::status::{Failure, HardtackStatus, argument, guarded, mismatch, value_or};
use crate::tensor::{HardtackBuffer, HardtackPort, HardtackTensor};

/// A model loaded for this machine, with the results of its last inference.
pub struct HardtackSession {
    pub(crate) session: Session,
    pub(crate) bundle: Bundle,
    pub(crate) labels: Vec<CString>,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    isa: CString,
    pub(crate) results: Option<Outputs>,
    /// Created on first use.
    pub(crate) classifier: Option<Classifier>,
}

impl Handle for HardtackSession {
    const TAG: u64 = u64::from_le_bytes(*b"HTsessio");
    const NAME: &'static str = "a session";
}

impl HardtackSession {
    /// Returns `name`, or the name of the model's input or output at `index` if `name` is null.
    ///
    /// # Safety
    /// `name` is null or a NUL-terminated string that lives as long as `ports`.
    unsafe fn name(ports: &[Port], name: *const c_char, index: usize) -> Result<&str, Failure> {
        if !name.is_null() {
            // SAFETY: `name` is not null, so it is a NUL-terminated string that lives as long as
            // `ports`.
            return unsafe { text(name, "name") };
        }
        let port = ports.get(index).ok_or_else(|| {
            mismatch(format!("the model has only {} inputs; name the tensors", ports.len()))
        })?;
        Ok(&port.name)
    }
}

/// Creates a session: loads the model of a bundle for this machine.
///
/// @param bundle  the bundle, which may be freed afterwards
/// @param options the options, or NULL for the default ones
/// @param session receives the session
///
/// # Safety
/// `bundle` is NULL or an open bundle; `options` is NULL or points to options of `options->size`
/// bytes; `session` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_new(
    bundle: *const HardtackBundle,
    options: *const HardtackOptions,
    session: *mut *mut HardtackSession,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `bundle` is NULL or an open bundle, and bundles are immutable.
        let from = unsafe { borrow(bundle, "bundle")? };
        // SAFETY: `options` is NULL or points to `options->size` bytes, and `options->isa` is NULL
        // or a NUL-terminated string.
        let options = unsafe { HardtackOptions::read(options)? };
        // SAFETY: `session` is NULL or valid for writes.
        let mut to = unsafe { Target::new(session, 1, "session")? };
        let made = Session::with_options(&from.bundle, options)?;
        let names = |ports: &[Port]| ports.iter().map(|port| owned(&port.name)).collect();
        to.write([give(HardtackSession {
            inputs: names(made.inputs()),
            outputs: names(made.outputs()),
            isa: owned(made.isa().name()),
            session: made,
            bundle: from.bundle.clone(),
            labels: from.labels.clone(),
            results: None,
            classifier: None,
        })]);
        Ok(())
    })
}

/// Returns the number of inputs, or 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_input_count(session: *const HardtackSession) -> usize {
    value_or(0, || {
        if session.is_null() {
            return Ok(0);
        }
        // SAFETY: `session` is a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.inputs.len())
    })
}

/// Returns the number of outputs, or 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_output_count(session: *const HardtackSession) -> usize {
    value_or(0, || {
        if session.is_null() {
            return Ok(0);
        }
        // SAFETY: `session` is a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.outputs.len())
    })
}

/// Describes the input at `index`.
///
/// # Safety
/// `session` is NULL or a session; `port` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_input(
    session: *const HardtackSession,
    index: usize,
    port: *mut HardtackPort,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `port` is NULL or valid for writes.
        let mut to = unsafe { Target::new(port, 1, "port")? };
        to.write([described(session.session.inputs(), &session.inputs, index, "inputs")?]);
        Ok(())
    })
}

/// Describes the output at `index`.
///
/// # Safety
/// `session` is NULL or a session; `port` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_output(
    session: *const HardtackSession,
    index: usize,
    port: *mut HardtackPort,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `port` is NULL or valid for writes.
        let mut to = unsafe { Target::new(port, 1, "port")? };
        to.write([described(session.session.outputs(), &session.outputs, index, "outputs")?]);
        Ok(())
    })
}

fn described(
    ports: &[Port],
    names: &[CString],
    index: usize,
    what: &str,
) -> Result<HardtackPort, Failure> {
    let (Some(port), Some(name)) = (ports.get(index), names.get(index)) else {
        return Err(argument(format!(
            "the model has {} {what}; there is no index {index}",
            ports.len()
        )));
    };
    Ok(HardtackPort::of(port, name))
}

/// Returns the name of the instruction set that integer programs use, or NULL for NULL. The string
/// is valid until the session is freed.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_isa(session: *const HardtackSession) -> *const c_char {
    value_or(ptr::null(), || {
        if session.is_null() {
            return Ok(ptr::null());
        }
        // SAFETY: `session` is a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.isa.as_ptr())
    })
}

/// Returns the size in bytes of the arena, the memory that integer programs use for activations. 0
/// for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_arena_bytes(session: *const HardtackSession) -> usize {
    value_or(0, || {
        if session.is_null() {
            return Ok(0);
        }
        // SAFETY: `session` is a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.session.arena_bytes())
    })
}

/// Runs one inference. `hardtack_session_result` returns the outputs. An input with a default value
/// may be left out; such inputs follow those that must be given.
///
/// @param inputs the inputs of the model; in any order if they have names
/// @param count  the number of inputs
///
/// # Safety
/// `session` is NULL or a session that no other thread uses; `inputs` is NULL or points to `count`
/// tensors, whose pointers are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_run(
    session: *mut HardtackSession,
    inputs: *const HardtackTensor,
    count: usize,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that no other thread uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `inputs` is NULL or points to `count` tensors, which do not change during the
        // call.
        let given = unsafe { slice(inputs, count, "inputs")? };
        let ports = session.session.inputs();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (index, input) in given.iter().enumerate() {
            // SAFETY: `name` is NULL or a NUL-terminated string, and `data` is NULL or points to
            // `bytes` bytes. Neither changes during the call.
            unsafe {
                let name = HardtackSession::name(ports, input.name, index)?;
                let port = ports.iter().find(|port| port.name == name);
                tensors.push((name.into(), input.tensor(port)?));
            }
        }
        session.results = Some(session.session.run(&golden::named(&tensors))?);
        Ok(())
    })
}

/// Returns the output at `index` of the last `hardtack_session_run` or `hardtack_session_classify`.
/// Its elements are valid until the next such call.
///
/// # Safety
/// `session` is NULL or a session; `tensor` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_result(
    session: *const HardtackSession,
    index: usize,
    tensor: *mut HardtackTensor,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that is not mutated during the call.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `tensor` is NULL or valid for writes.
        let mut to = unsafe { Target::new(tensor, 1, "tensor")? };
        let results = session.results.as_ref();
        let results = results.ok_or_else(|| argument("the session has not been run yet"))?;
        let (Some((_, result)), Some(name)) = (results[..].get(index), session.outputs.get(index))
        else {
            let count = results.len();
            return Err(argument(format!(
                "the model has {count} outputs; there is no index {index}"
            )));
        };
        to.write([HardtackTensor::of(result, name)]);
        Ok(())
    })
}

/// Runs one inference directly on memory of the caller, without copies. Supports inputs and outputs
/// of f32, i8 and u8. An integer model does not allocate from the second inference on. Outputs must
/// not share memory with inputs or with each other.
///
/// @param inputs       the inputs of the model
/// @param input_count  the number of inputs
/// @param outputs      buffers for the outputs; outputs without a buffer are discarded
/// @param output_count the number of buffers
///
/// # Safety
/// `session` is NULL or a session that no other thread uses; `inputs` is NULL or points to
/// `input_count` tensors, and `outputs` is NULL or points to `output_count` buffers. Their pointers
/// are valid, and nothing else changes this memory during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_run_into(
    session: *mut HardtackSession,
    inputs: *const HardtackTensor,
    input_count: usize,
    outputs: *const HardtackBuffer,
    output_count: usize,
) -> HardtackStatus {
    const MOST: usize = hardtack_bundle::manifest::MAX_PORTS;
    guarded(|| {
        // SAFETY: `session` is NULL or a session that no other thread uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `inputs` is NULL or points to `input_count` tensors, which do not change.
        let inputs = unsafe { slice(inputs, input_count, "inputs")? };
        // SAFETY: `outputs` is NULL or points to `output_count` buffers, which do not change.
        let outputs = unsafe { slice(outputs, output_count, "outputs")? };
        if inputs.len() > MOST || outputs.len() > MOST {
            return Err(mismatch(format!("a model has at most {MOST} inputs and outputs")));
        }
        are_apart(inputs, outputs)?;
        // Use the names of the handle, because the session is borrowed mutably.
        let HardtackSession { session, inputs: input_names, outputs: output_names, .. } = session;
        let mut given: [(&str, View<'_>); MOST] = [("", View::U8(&[])); MOST];
        for (index, (to, input)) in given.iter_mut().zip(inputs).enumerate() {
            // SAFETY: `name` is NULL or a NUL-terminated string, and `data` is NULL or points to
            // `bytes` bytes. Neither changes during the call.
            *to = unsafe { (named("inputs", input.name, input_names, index)?, input.view()?) };
        }
        let mut wanted: [(&str, ViewMut<'_>); MOST] =
            std::array::from_fn(|_| ("", ViewMut::U8(&mut [])));
        for (index, (to, output)) in wanted.iter_mut().zip(outputs).enumerate() {
            // SAFETY: `name` is NULL or a NUL-terminated string that does not change during the
            // call. `data` is NULL or points to `bytes` bytes that no other thread accesses, and
            // `are_apart` checked that no other input or output shares them.
            *to = unsafe { (named("outputs", output.name, output_names, index)?, output.view()?) };
        }
        session.run_into(&given[..inputs.len()], &mut wanted[..outputs.len()])?;
        Ok(())
    })
}

/// Returns `name`, or the name in `own` at `index` if `name` is null.
///
/// # Safety
/// `name` is null or a NUL-terminated string that lives for `'a`.
unsafe fn named<'a>(
    what: &str,
    name: *const c_char,
    own: &'a [CString],
    index: usize,
) -> Result<&'a str, Failure> {
    let place = own.get(index);
    let place =
        place.ok_or_else(|| mismatch(format!("the model has only {} {what}", own.len())))?;
    let name = if name.is_null() { place.as_ptr() } else { name };
    // SAFETY: `name` is the caller's or the handle's NUL-terminated string, and lives for `'a`.
    unsafe { text(name, "name") }
}

/// Checks that outputs do not share memory with inputs, with the arguments, or with each other.
fn are_apart(inputs: &[HardtackTensor], outputs: &[HardtackBuffer]) -> Result<(), Failure> {
    let range = |start: usize, bytes: usize| start..start.saturating_add(bytes);
    let shares = |a: &Range<usize>, b: &Range<usize>| {
        !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
    };
    for (index, output) in outputs.iter().enumerate() {
        let written = range(output.data.addr(), output.bytes);
        let read = |input: &HardtackTensor| range(input.data.addr(), input.bytes);
        if let Some(input) = inputs.iter().position(|input| shares(&written, &read(input))) {
            return Err(argument(format!("output {index} shares memory with input {input}")));
        }
        let other = |output: &HardtackBuffer| range(output.data.addr(), output.bytes);
        if let Some(other) = outputs[..index].iter().position(|o| shares(&written, &other(o))) {
            return Err(argument(format!("output {index} shares memory with output {other}")));
        }
        // The arrays are read before the inference starts, and the names during it.
        let arrays = [
            range(inputs.as_ptr().addr(), size_of_val(inputs)),
            range(outputs.as_ptr().addr(), size_of_val(outputs)),
        ];
        let name = |name: *const c_char| !name.is_null() && written.contains(&name.addr());
        let names = inputs.iter().map(|i| i.name).chain(outputs.iter().map(|o| o.name));
        if arrays.iter().any(|array| shares(&written, array)) || names.into_iter().any(name) {
            return Err(argument(format!("output {index} shares memory with an argument")));
        }
    }
    Ok(())
}

/// Runs the bundle's golden vectors: checks that this machine computes the results that were
/// recorded when the model was converted.
///
/// @param holds receives whether there are golden vectors and all results match
///
/// # Safety
/// `session` is NULL or a session that no other thread uses; `holds` is NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_check(
    session: *mut HardtackSession,
    holds: *mut bool,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that no other thread uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `holds` is NULL or valid for writes.
        let mut to = unsafe { Target::new(holds, 1, "holds")? };
        let report = golden::check(&session.bundle, &mut session.session)?;
        to.write([report.cases > 0 && report.holds()]);
        Ok(())
    })
}

/// Resets all kept states to their initial values.
///
/// # Safety
/// `session` is NULL or a session that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_reset(session: *mut HardtackSession) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that no other thread uses.
        unsafe { borrow_mut(session, "session")? }.session.reset();
        Ok(())
    })
}

/// Frees a session. Does nothing for NULL. Does not block in a child process after `fork`.
///
/// # Safety
/// `session` is NULL or a session, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_free(session: *mut HardtackSession) {
    value_or((), || {
        // SAFETY: `session` is NULL or a session, which is not used during or after the call.
        unsafe { free(session, "session") }
    });
}
