//! How a session is to run.

use std::ffi::c_char;
use std::ptr;
use std::time::Duration;

use hardtack::{Isa, Limits, Options};

use crate::pointer::{read, text};
use crate::status::{Failure, argument, value_or};

/// How a session is to run. `hardtack_options` fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackOptions {
    /// The size of this struct in bytes: a library that knows more settings reads only these.
    pub size: usize,
    /// Threads for integer programs, at most 1024; 0 is 1. Results do not depend on it.
    pub threads: u32,
    /// Whether inputs that an output of the run before feeds may be left out.
    pub keep_state: bool,
    /// Instruction set of the integer kernels, such as `neondot`; NULL is the best of this machine.
    pub isa: *const c_char,
    /// The maximum number of bytes that the session may hold: repacked weights, constants, arenas
    /// and intermediate values. 0 is 4 GiB. A model that needs more is refused.
    pub memory_limit: u64,
    /// The maximum number of element operations of one inference. 0 is 2^41. A model that needs more
    /// is refused.
    pub operation_limit: u64,
    /// The maximum time of one call that runs the model, in milliseconds; 0 is no maximum. Compared
    /// between operations.
    pub run_time_limit: u64,
}

/// The usual options: one thread, no kept state, the best instruction set, the default limits.
#[unsafe(no_mangle)]
pub extern "C" fn hardtack_options() -> HardtackOptions {
    value_or(USUAL, || Ok(USUAL))
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

/// [`HardtackOptions`] as the other side fills it: any bytes are one.
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

/// Settings may be added to the struct, behind those that are there. A caller that knows fewer says
/// so by its size, and gets the usual ones for the rest.
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
    /// What the session may use; 0 stands for the default of each limit.
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
    /// The options of a pointer; the usual ones for null.
    ///
    /// # Safety
    /// It is null, or points to a size and, if that is possible, to that many bytes, with good pointers.
    pub(crate) unsafe fn read(options: *const HardtackOptions) -> Result<Options, Failure> {
        if options.is_null() {
            return Ok(Options::default());
        }
        // SAFETY: it points to a size.
        let size = unsafe { read(options.cast::<usize>(), "options")? };
        if size < LEAST {
            return Err(argument("options.size is not set; begin with hardtack_options()"));
        }
        if size > size_of::<Given>() {
            return Err(argument(format!(
                "options has {size} bytes, of which this library knows {}; begin with \
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
        // SAFETY: it points to `size` bytes, and `given` has no fewer.
        unsafe {
            options.cast::<u8>().copy_to_nonoverlapping((&raw mut given).cast(), size);
        }
        let keep_state = match given.keep_state {
            0 => false,
            1 => true,
            _ => {
                return Err(argument(
                    "options.keep_state is neither true nor false; begin with hardtack_options()",
                ));
            }
        };
        let isa = if given.isa.is_null() {
            None
        } else {
            // SAFETY: it is a text that ends with a zero.
            let name = unsafe { text(given.isa, "options.isa")? };
            let isa = Isa::from_name(name);
            Some(isa.ok_or_else(|| argument(format!("{name} is not an instruction set")))?)
        };
        let limits = given.limits();
        Ok(Options { keep_state, isa, threads: given.threads.max(1) as usize, limits })
    }
}
