//! Sessions: models made ready for this machine.

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

/// A model made ready for this machine, with what its last run gave.
pub struct HardtackSession {
    pub(crate) session: Session,
    pub(crate) bundle: Bundle,
    pub(crate) labels: Vec<CString>,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    isa: CString,
    pub(crate) results: Option<Outputs>,
    /// Made when it is first needed.
    pub(crate) classifier: Option<Classifier>,
}

impl Handle for HardtackSession {
    const TAG: u64 = u64::from_le_bytes(*b"HTsessio");
    const NAME: &'static str = "a session";
}

impl HardtackSession {
    /// The name for a place: as given, or the one that the model has there.
    ///
    /// # Safety
    /// `name` is null or a text that ends with a zero, which stays as long.
    unsafe fn name(ports: &[Port], name: *const c_char, index: usize) -> Result<&str, Failure> {
        if !name.is_null() {
            // SAFETY: it is a text that ends with a zero, and stays as long.
            return unsafe { text(name, "name") };
        }
        let port = ports.get(index).ok_or_else(|| {
            mismatch(format!("the model has {} and no more; give names", ports.len()))
        })?;
        Ok(&port.name)
    }
}

/// Makes a bundle's model ready for this machine.
///
/// @param bundle  the bundle, which may be freed afterwards
/// @param options NULL for the usual ones
/// @param session gets the session
///
/// # Safety
/// `bundle` is NULL or an open bundle; `options` is NULL or such a struct, of the size that it says;
/// `session` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_new(
    bundle: *const HardtackBundle,
    options: *const HardtackOptions,
    session: *mut *mut HardtackSession,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `bundle` is NULL or an open bundle, which nobody changes.
        let from = unsafe { borrow(bundle, "bundle")? };
        // SAFETY: `options` is NULL or points to as many bytes as its size says, with good pointers.
        let options = unsafe { HardtackOptions::read(options)? };
        // SAFETY: `session` is NULL or can be written.
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

/// Number of inputs; 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_input_count(session: *const HardtackSession) -> usize {
    value_or(0, || {
        if session.is_null() {
            return Ok(0);
        }
        // SAFETY: `session` is a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.inputs.len())
    })
}

/// Number of outputs; 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_output_count(session: *const HardtackSession) -> usize {
    value_or(0, || {
        if session.is_null() {
            return Ok(0);
        }
        // SAFETY: `session` is a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.outputs.len())
    })
}

/// Tells what input number `index` is.
///
/// # Safety
/// `session` is NULL or a session; `port` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_input(
    session: *const HardtackSession,
    index: usize,
    port: *mut HardtackPort,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `port` is NULL or can be written.
        let mut to = unsafe { Target::new(port, 1, "port")? };
        to.write([described(session.session.inputs(), &session.inputs, index, "inputs")?]);
        Ok(())
    })
}

/// Tells what output number `index` is.
///
/// # Safety
/// `session` is NULL or a session; `port` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_output(
    session: *const HardtackSession,
    index: usize,
    port: *mut HardtackPort,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `port` is NULL or can be written.
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
        return Err(argument(format!("there are {} {what}, and no number {index}", ports.len())));
    };
    Ok(HardtackPort::of(port, name))
}

/// The instruction set that integer programs use, for as long as the session is there; NULL for
/// NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_isa(session: *const HardtackSession) -> *const c_char {
    value_or(ptr::null(), || {
        if session.is_null() {
            return Ok(ptr::null());
        }
        // SAFETY: `session` is a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.isa.as_ptr())
    })
}

/// Bytes of memory that integer programs use for activations; 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_arena_bytes(session: *const HardtackSession) -> usize {
    value_or(0, || {
        if session.is_null() {
            return Ok(0);
        }
        // SAFETY: `session` is a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        Ok(session.session.arena_bytes())
    })
}

/// Runs the model. `hardtack_session_result` tells what it gave.
///
/// @param inputs its inputs, in any order where they have names
/// @param count  how many
///
/// # Safety
/// `session` is NULL or a session that nobody else uses; `inputs` is NULL or points to `count`
/// tensors, whose pointers are good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_run(
    session: *mut HardtackSession,
    inputs: *const HardtackTensor,
    count: usize,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that nobody else uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `inputs` is NULL or points to `count` tensors, which nobody changes.
        let given = unsafe { slice(inputs, count, "inputs")? };
        let ports = session.session.inputs();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (index, input) in given.iter().enumerate() {
            // SAFETY: the pointers of a tensor are good.
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

/// Tells output number `index` of the last `hardtack_session_run` or `hardtack_session_classify`.
/// Its elements stay until the next.
///
/// # Safety
/// `session` is NULL or a session; `tensor` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_result(
    session: *const HardtackSession,
    index: usize,
    tensor: *mut HardtackTensor,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session, which nobody changes.
        let session = unsafe { borrow(session, "session")? };
        // SAFETY: `tensor` is NULL or can be written.
        let mut to = unsafe { Target::new(tensor, 1, "tensor")? };
        let results = session.results.as_ref();
        let results = results.ok_or_else(|| argument("the session has not been run yet"))?;
        let (Some((_, result)), Some(name)) = (results[..].get(index), session.outputs.get(index))
        else {
            let count = results.len();
            return Err(argument(format!("there are {count} outputs, and no number {index}")));
        };
        to.write([HardtackTensor::of(result, name)]);
        Ok(())
    })
}

/// Runs the model from memory of the caller into memory of the caller, without copies between. For
/// inputs and outputs of f32, i8 and u8. A model that is in integers throughout allocates nothing
/// from its second run on. Outputs must not share memory with inputs or with each other.
///
/// @param inputs       its inputs
/// @param input_count  how many
/// @param outputs      where outputs go; those that are not there are not given
/// @param output_count how many
///
/// # Safety
/// `session` is NULL or a session that nobody else uses; `inputs` and `outputs` are NULL or point to
/// as many, whose pointers are good, and which nobody changes.
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
        // SAFETY: `session` is NULL or a session that nobody else uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `inputs` is NULL or points to as many tensors, which nobody changes.
        let inputs = unsafe { slice(inputs, input_count, "inputs")? };
        // SAFETY: `outputs` is NULL or points to as many buffers, which nobody changes.
        let outputs = unsafe { slice(outputs, output_count, "outputs")? };
        if inputs.len() > MOST || outputs.len() > MOST {
            return Err(mismatch(format!("a model has at most {MOST} inputs and outputs")));
        }
        are_apart(inputs, outputs)?;
        // Names are those of the handle, so that the session itself can be changed.
        let HardtackSession { session, inputs: input_names, outputs: output_names, .. } = session;
        let mut given: [(&str, View<'_>); MOST] = [("", View::U8(&[])); MOST];
        for (index, (to, input)) in given.iter_mut().zip(inputs).enumerate() {
            // SAFETY: names and elements stay and do not change during the call.
            *to = unsafe { (named("inputs", input.name, input_names, index)?, input.view()?) };
        }
        let mut wanted: [(&str, ViewMut<'_>); MOST] =
            std::array::from_fn(|_| ("", ViewMut::U8(&mut [])));
        for (index, (to, output)) in wanted.iter_mut().zip(outputs).enumerate() {
            // SAFETY: names stay and do not change during the call. The memory of the output is good,
            // nobody else uses it, and no other input or output shares it.
            *to = unsafe { (named("outputs", output.name, output_names, index)?, output.view()?) };
        }
        session.run_into(&given[..inputs.len()], &mut wanted[..outputs.len()])?;
        Ok(())
    })
}

/// The name for a place: as given, or the handle's own.
///
/// # Safety
/// `name` is null or a text that ends with a zero, which stays as long.
unsafe fn named<'a>(
    what: &str,
    name: *const c_char,
    own: &'a [CString],
    index: usize,
) -> Result<&'a str, Failure> {
    let place = own.get(index);
    let place = place.ok_or_else(|| mismatch(format!("there are {} {what}", own.len())))?;
    let name = if name.is_null() { place.as_ptr() } else { name };
    // SAFETY: it is a text that ends with a zero, and stays.
    unsafe { text(name, "name") }
}

/// Refuses outputs that share memory with what is read, or with each other.
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
        // The arrays, which are read until the run begins, and texts of names during it.
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

/// Runs the bundle's own test vectors: whether this machine gives the results that the model gave
/// where it was converted.
///
/// @param holds gets whether it does
///
/// # Safety
/// `session` is NULL or a session that nobody else uses; `holds` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_check(
    session: *mut HardtackSession,
    holds: *mut bool,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that nobody else uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `holds` is NULL or can be written.
        let mut to = unsafe { Target::new(holds, 1, "holds")? };
        let report = golden::check(&session.bundle, &mut session.session)?;
        to.write([report.cases > 0 && report.holds()]);
        Ok(())
    })
}

/// All kept states are zero again.
///
/// # Safety
/// `session` is NULL or a session that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_reset(session: *mut HardtackSession) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that nobody else uses.
        unsafe { borrow_mut(session, "session")? }.session.reset();
        Ok(())
    })
}

/// Frees a session. Does nothing for NULL. Does not block in a child process after `fork`.
///
/// # Safety
/// `session` is NULL or a session, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_free(session: *mut HardtackSession) {
    value_or((), || {
        // SAFETY: `session` is NULL or a session, which nobody uses any more.
        unsafe { free(session, "session") }
    });
}
