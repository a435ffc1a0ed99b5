//! How a session is to run.

use std::ffi::c_char;
use std::ptr;

use hardtack::{Isa, Options};

use crate::pointer::{read, text};
use crate::status::{Failure, argument, value_or};

/// How a session is to run. `hardtack_options` fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackOptions {
    /// Bytes of this struct, by which a library that knows more settings tells which are there.
    pub size: usize,
    /// Threads for integer programs, at most 1024; 0 is 1. Results do not depend on it.
    pub threads: u32,
    /// Whether inputs that an output of the run before feeds may be left out.
    pub keep_state: bool,
    /// Instruction set of the integer kernels, such as `neondot`; NULL is the best of this machine.
    pub isa: *const c_char,
}

/// The usual options: one thread, no kept state, the best instruction set.
#[unsafe(no_mangle)]
pub extern "C" fn hardtack_options() -> HardtackOptions {
    value_or(USUAL, || Ok(USUAL))
}

const USUAL: HardtackOptions = HardtackOptions {
    size: size_of::<HardtackOptions>(),
    threads: 1,
    keep_state: false,
    isa: ptr::null(),
};

/// [`HardtackOptions`] as the other side fills it: any bytes are one.
#[repr(C)]
#[derive(Clone, Copy)]
struct Given {
    size: usize,
    threads: u32,
    keep_state: u8,
    isa: *const c_char,
}

/// Settings may be added to the struct, behind those that are there. A caller that knows fewer says
/// so by its size, and gets the usual ones for the rest.
const LEAST: usize = std::mem::offset_of!(Given, isa) + size_of::<*const c_char>();
const _: () = assert!(
    size_of::<Given>() == size_of::<HardtackOptions>()
        && std::mem::offset_of!(Given, keep_state)
            == std::mem::offset_of!(HardtackOptions, keep_state)
        && std::mem::offset_of!(Given, isa) == std::mem::offset_of!(HardtackOptions, isa)
);

impl HardtackOptions {
    /// The options of a pointer; the usual ones for null.
    ///
    /// # Safety
    /// It is null, or points to a size and, if that is possible, to so many bytes, with good pointers.
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
        let mut given = Given { size, threads, keep_state: 0, isa };
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
        Ok(Options { keep_state, isa, threads: given.threads.max(1) as usize })
    }
}
