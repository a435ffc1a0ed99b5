//! Session options.

use std::ffi::c_char;
use std::ptr;
use std::time::Duration;

use hardtack::{Isa, Limits, SessionOptions};

use crate::pointer::{read, text};
use crate::status::{Failure, HardtackStatus, argument, guarded};

/// The options of a session. Initialize them with `hardtack_options()`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackOptions {
    /// The size of this struct in bytes. A newer library with more options reads only this many.
    pub size: usize,
    /// The number of threads for integer programs, at most 1024. 0 means 1. Results do not depend
    /// on it.
    pub threads: u32,
    /// Whether the session keeps states: an input that is fed by an output of the previous
    /// inference may then be omitted.
    pub keep_state: bool,
    /// The instruction set of the integer kernels, such as `neondot`. NULL selects the best one
    /// that this processor supports.
    pub isa: *const c_char,
    /// The maximum number of bytes that the session may hold: repacked weights, constants, arenas
    /// and intermediate values. 0 means 4 GiB. A model that needs more is rejected.
    pub memory_limit: u64,
    /// The maximum number of element operations of one inference. 0 means 2^41. A model that needs
    /// more is rejected.
    pub operation_limit: u64,
    /// The maximum time of one call that runs the model, and of loading a float model, in
    /// milliseconds. 0 means no limit. Checked between operations.
    pub run_time_limit: u64,
}

/// Initializes options with the defaults: one thread, no kept states, the best instruction set, and
/// the default limits. C and C++ call `hardtack_options()` instead.
///
/// The caller passes the size of the struct that it was compiled with, so a newer library writes no
/// more than that, and options that an older library does not have are set to zero.
///
/// @param options  the options
/// @param size     the size of `HardtackOptions` in bytes
///
/// # Safety
/// `options` is NULL, or `size` bytes can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_options_init(
    options: *mut HardtackOptions,
    size: usize,
) -> HardtackStatus {
    // SAFETY: `options` is NULL, or `size` bytes can be written there.
    guarded(|| unsafe { initialize(options, size) })
}

/// Returns the default options, as the inline function of the same name in the header does.
pub fn hardtack_options() -> HardtackOptions {
    USUAL
}

/// Writes the defaults to the first `size` bytes of `options`.
///
/// # Safety
/// `options` is null, or `size` bytes can be written there.
unsafe fn initialize(options: *mut HardtackOptions, size: usize) -> Result<(), Failure> {
    if options.is_null() {
        return Err(argument("options is NULL"));
    }
    if size < LEAST {
        return Err(argument(format!("the options have at least {LEAST} bytes, not {size}")));
    }
    let known = size.min(size_of::<HardtackOptions>());
    let usual = HardtackOptions { size: known, ..USUAL };
    // SAFETY: `options` is not null, so `size` bytes can be written there. `usual` has `known`
    // bytes, which is at most `size`.
    unsafe {
        options.cast::<u8>().write_bytes(0, size);
        (&raw const usual).cast::<u8>().copy_to_nonoverlapping(options.cast(), known);
    }
    Ok(())
}

const USUAL: HardtackOptions = HardtackOptions {
    size: size_of::<HardtackOptions>(),
    threads: 1,
    keep_state: false,
    isa: ptr::null(),
    memory_limit: 0,
    operation_limit: 0,
    run_time_limit: 0,
};

/// [`HardtackOptions`] as the C caller sets it. Every bit pattern is valid for this type.
#[repr(C)]
#[derive(Clone, Copy)]
struct Given {
    size: usize,
    threads: u32,
    keep_state: u8,
    isa: *const c_char,
    memory_limit: u64,
    operation_limit: u64,
    run_time_limit: u64,
}

/// The size of the struct in the first release. Later releases add options at its end. A caller of
/// an older release passes a smaller size, and the options that it does not have get their
/// defaults.
const LEAST: usize = std::mem::offset_of!(Given, isa) + size_of::<*const c_char>();
const _: () = assert!(
    size_of::<Given>() == size_of::<HardtackOptions>()
        && std::mem::offset_of!(Given, keep_state)
            == std::mem::offset_of!(HardtackOptions, keep_state)
        && std::mem::offset_of!(Given, isa) == std::mem::offset_of!(HardtackOptions, isa)
        && std::mem::offset_of!(Given, run_time_limit)
            == std::mem::offset_of!(HardtackOptions, run_time_limit)
);

impl Given {
    /// Returns the limits of the session. 0 means the default of each limit.
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if self.memory_limit > 0 {
            limits = limits.with_memory_bytes(self.memory_limit);
        }
        if self.operation_limit > 0 {
            limits = limits.with_operations(self.operation_limit);
        }
        if self.run_time_limit > 0 {
            limits = limits.with_run_time(Duration::from_millis(self.run_time_limit));
        }
        limits
    }
}

impl HardtackOptions {
    /// Returns the options that a pointer refers to, or the default options for null.
    ///
    /// # Safety
    /// `options` is null, or points to its field `size` and, if that is a supported size, to that
    /// many bytes. `options.isa` is then null or a NUL-terminated string.
    pub(crate) unsafe fn read(options: *const HardtackOptions) -> Result<SessionOptions, Failure> {
        if options.is_null() {
            return Ok(SessionOptions::default());
        }
        // SAFETY: `options` is not null, and points to its first field, `size`.
        let size = unsafe { read(options.cast::<usize>(), "options")? };
        if size < LEAST {
            return Err(argument("options.size is not set; initialize it with hardtack_options()"));
        }
        if size > size_of::<Given>() {
            return Err(argument(format!(
                "options.size is {size}, but this library supports at most {}; initialize it with \
                 hardtack_options() of the same version",
                size_of::<Given>()
            )));
        }
        let HardtackOptions { threads, isa, .. } = USUAL;
        let mut given = Given {
            size,
            threads,
            keep_state: 0,
            isa,
            memory_limit: 0,
            operation_limit: 0,
            run_time_limit: 0,
        };
        // SAFETY: `options` points to `size` bytes, and `given` has at least as many. Every bit
        // pattern is valid for `Given`.
        unsafe {
            options.cast::<u8>().copy_to_nonoverlapping((&raw mut given).cast(), size);
        }
        let keep_state = match given.keep_state {
            0 => false,
            1 => true,
            _ => {
                return Err(argument(
                    "options.keep_state is neither true nor false; initialize it with \
                     hardtack_options()",
                ));
            }
        };
        let isa = if given.isa.is_null() {
            None
        } else {
            // SAFETY: `isa` is not null, so it is a NUL-terminated string.
            let name = unsafe { text(given.isa, "options.isa")? };
            let isa = Isa::from_name(name);
            Some(isa.ok_or_else(|| argument(format!("{name} is not an instruction set")))?)
        };
        let limits = given.limits();
        Ok(SessionOptions { keep_state, isa, threads: given.threads.max(1) as usize, limits })
    }
}
