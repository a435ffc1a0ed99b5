//! Sessions: models made ready for this machine.

use std::ffi::{CString, c_char};
use std::ptr;

use hardtack::{Bundle, Isa, Options, Outputs, Port, Session, Tensor, View, ViewMut, golden};

use crate::bundle::HardtackBundle;
use crate::classify::Classifier;
use crate::pointer::{borrow, borrow_mut, owned, slice, text};
use crate::status::{Failure, HardtackStatus, argument, guarded, mismatch};
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

/// How a session is to run. `hardtack_options` fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackOptions {
    /// Bytes of this struct, by which a library that knows more settings tells which are there.
    pub size: usize,
    /// Threads for integer programs, at least 1. Results do not depend on it.
    pub threads: u32,
    /// Whether inputs that an output of the run before feeds may be left out.
    pub keep_state: bool,
    /// Instruction set of the integer kernels, such as `neondot`; NULL is the best of this machine.
    pub isa: *const c_char,
}

impl HardtackSession {
    /// The name for a place: as given, or the one that the model has there.
    ///
    /// # Safety
    /// `name` is null or a text that ends with a zero, which stays as long.
    unsafe fn name(ports: &[Port], name: *const c_char, index: usize) -> Result<&str, Failure> {
        if !name.is_null() {
            // SAFETY: as the caller promises.
            return unsafe { text(name, "name") };
        }
        let port = ports.get(index).ok_or_else(|| {
            mismatch(format!("the model has {} and no more; give names", ports.len()))
        })?;
        Ok(&port.name)
    }
}

/// The usual options: one thread, no kept state, the best instruction set.
#[unsafe(no_mangle)]
pub extern "C" fn hardtack_options() -> HardtackOptions {
    HardtackOptions {
        size: size_of::<HardtackOptions>(),
        threads: 1,
        keep_state: false,
        isa: ptr::null(),
    }
}

/// Makes a bundle's model ready for this machine.
///
/// @param bundle  the bundle, which may be freed afterwards
/// @param options NULL for the usual ones
/// @param session gets the session
///
/// # Safety
/// `bundle` is NULL or an open bundle; `options` is NULL or such a struct; `session` is NULL or can
/// be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_new(
    bundle: *const HardtackBundle,
    options: *const HardtackOptions,
    session: *mut *mut HardtackSession,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: as the caller promises.
        let (from, to) = unsafe { (borrow(bundle, "bundle")?, borrow_mut(session, "session")?) };
        let options = if options.is_null() {
            Options::default()
        } else {
            // SAFETY: it is not null, and its size is the first that is in it.
            let size = unsafe { (&raw const (*options).size).read() };
            if size < size_of::<HardtackOptions>() {
                return Err(argument("options.size is not set; begin with hardtack_options()"));
            }
            // SAFETY: it is as large as the struct.
            let given = unsafe { borrow(options, "options")? };
            let isa = if given.isa.is_null() {
                None
            } else {
                // SAFETY: as the caller promises.
                let name = unsafe { text(given.isa, "options.isa")? };
                let isa = Isa::from_name(name);
                Some(isa.ok_or_else(|| argument(format!("{name} is no instruction set")))?)
            };
            let threads = given.threads.max(1) as usize;
            Options { keep_state: given.keep_state, isa, threads, ..Options::default() }
        };
        let made = Session::with_options(&from.bundle, options)?;
        let names = |ports: &[Port]| ports.iter().map(|port| owned(&port.name)).collect();
        *to = Box::into_raw(Box::new(HardtackSession {
            inputs: names(made.inputs()),
            outputs: names(made.outputs()),
            isa: owned(made.isa().name()),
            session: made,
            bundle: from.bundle.clone(),
            labels: from.labels.clone(),
            results: None,
            classifier: None,
        }));
        Ok(())
    })
}

/// Number of inputs; 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_input_count(session: *const HardtackSession) -> usize {
    // SAFETY: as the caller promises.
    unsafe { session.as_ref() }.map_or(0, |session| session.inputs.len())
}

/// Number of outputs; 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_output_count(session: *const HardtackSession) -> usize {
    // SAFETY: as the caller promises.
    unsafe { session.as_ref() }.map_or(0, |session| session.outputs.len())
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
        // SAFETY: as the caller promises.
        let (session, to) = unsafe { (borrow(session, "session")?, borrow_mut(port, "port")?) };
        *to = described(session.session.inputs(), &session.inputs, index, "inputs")?;
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
        // SAFETY: as the caller promises.
        let (session, to) = unsafe { (borrow(session, "session")?, borrow_mut(port, "port")?) };
        *to = described(session.session.outputs(), &session.outputs, index, "outputs")?;
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
    // SAFETY: as the caller promises.
    unsafe { session.as_ref() }.map_or(ptr::null(), |session| session.isa.as_ptr())
}

/// Bytes of memory that integer programs use for activations; 0 for NULL.
///
/// # Safety
/// `session` is NULL or a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_arena_bytes(session: *const HardtackSession) -> usize {
    // SAFETY: as the caller promises.
    unsafe { session.as_ref() }.map_or(0, |session| session.session.arena_bytes())
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
        // SAFETY: as the caller promises.
        let (session, given) =
            unsafe { (borrow_mut(session, "session")?, slice(inputs, count, "inputs")?) };
        let ports = session.session.inputs();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (index, input) in given.iter().enumerate() {
            // SAFETY: as the caller promises.
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
        // SAFETY: as the caller promises.
        let (session, to) = unsafe { (borrow(session, "session")?, borrow_mut(tensor, "tensor")?) };
        let results = session.results.as_ref();
        let results = results.ok_or_else(|| argument("the session has not been run yet"))?;
        let (Some((_, result)), Some(name)) = (results[..].get(index), session.outputs.get(index))
        else {
            let count = results.len();
            return Err(argument(format!("there are {count} outputs, and no number {index}")));
        };
        *to = HardtackTensor::of(result, name);
        Ok(())
    })
}

/// Runs the model from memory of the caller into memory of the caller, without copies between. For
/// inputs and outputs of f32, i8 and u8. A model that is in integers throughout allocates nothing
/// from its second run on.
///
/// @param inputs       its inputs
/// @param input_count  how many
/// @param outputs      where outputs go; those that are not there are not given
/// @param output_count how many
///
/// # Safety
/// `session` is NULL or a session that nobody else uses; `inputs` and `outputs` are NULL or point to
/// as many, whose pointers are good; outputs overlap with nothing.
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
        // SAFETY: as the caller promises.
        let (session, inputs, outputs) = unsafe {
            (
                borrow_mut(session, "session")?,
                slice(inputs, input_count, "inputs")?,
                slice(outputs, output_count, "outputs")?,
            )
        };
        if inputs.len() > MOST || outputs.len() > MOST {
            return Err(mismatch(format!("a model has at most {MOST} inputs and outputs")));
        }
        // Names are those of the handle, so that the session itself can be changed.
        let HardtackSession { session, inputs: input_names, outputs: output_names, .. } = session;
        let known = |names: &'static str, given: *const c_char, own: &[CString], index: usize| {
            let place = own.get(index);
            let place =
                place.ok_or_else(|| mismatch(format!("there are {} {names}", own.len())))?;
            Ok::<_, Failure>(if given.is_null() { place.as_ptr() } else { given })
        };
        let mut given: [(&str, View<'_>); MOST] = [("", View::U8(&[])); MOST];
        for (index, (to, input)) in given.iter_mut().zip(inputs).enumerate() {
            let name = known("inputs", input.name, input_names, index)?;
            // SAFETY: as the caller promises; the names of the handle stay.
            *to = unsafe { (text(name, "name")?, input.view()?) };
        }
        let mut wanted: [(&str, ViewMut<'_>); MOST] =
            std::array::from_fn(|_| ("", ViewMut::U8(&mut [])));
        for (index, (to, output)) in wanted.iter_mut().zip(outputs).enumerate() {
            let name = known("outputs", output.name, output_names, index)?;
            // SAFETY: as the caller promises; the names of the handle stay.
            *to = unsafe { (text(name, "name")?, output.view()?) };
        }
        session.run_into(&given[..inputs.len()], &mut wanted[..outputs.len()])?;
        Ok(())
    })
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
        // SAFETY: as the caller promises.
        let (session, to) =
            unsafe { (borrow_mut(session, "session")?, borrow_mut(holds, "holds")?) };
        let report = golden::check(&session.bundle, &mut session.session)?;
        *to = report.cases > 0 && report.holds();
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
        // SAFETY: as the caller promises.
        unsafe { borrow_mut(session, "session")? }.session.reset();
        Ok(())
    })
}

/// Ends a session.
///
/// # Safety
/// `session` is NULL or a session, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_free(session: *mut HardtackSession) {
    if !session.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(session) });
    }
}
