//! The serial port and the clock of Arm's MPS boards.

use core::convert::Infallible;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use embedded_io::{ErrorType, Read, Write};

use crate::TICKS_PER_SECOND;

/// The value from which SysTick counts down.
const RELOAD: u32 = 0x00ff_ffff;

static WRAPS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    // This is the only writer, and not every Cortex-M has atomic addition.
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// A clock that counts the processor's ticks.
pub struct Clock(SYST);

impl Clock {
    /// Starts the clock.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(RELOAD);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self(timer)
    }

    /// Returns the number of ticks since the start.
    pub fn ticks(&self) -> u64 {
        loop {
            let wraps = WRAPS.load(Ordering::Relaxed);
            let current = SYST::get_current();
            if wraps == WRAPS.load(Ordering::Relaxed) {
                return u64::from(wraps) * (u64::from(RELOAD) + 1) + u64::from(RELOAD - current);
            }
        }
    }

    /// Returns the time since the start in microseconds.
    pub fn microseconds(&self) -> u64 {
        self.ticks() * 1_000_000 / TICKS_PER_SECOND
    }
}

/// The first serial port: Arm's CMSDK APB UART.
pub struct Serial(());

/// Offsets of the registers, in words.
const DATA: usize = 0;
const STATE: usize = 1;
const CONTROL: usize = 2;
const DIVIDER: usize = 4;
/// Bits of the state register.
const FULL_TO_SEND: u32 = 1;
const FULL_RECEIVED: u32 = 2;

const BAUD: u64 = 115_200;

impl Serial {
    /// Enables the serial port. Call it only once, after taking the peripherals.
    pub fn start() -> Self {
        let mut serial = Self(());
        serial.write_register(DIVIDER, (TICKS_PER_SECOND / BAUD) as u32);
        serial.write_register(CONTROL, 3);
        serial
    }

    fn read_register(&self, register: usize) -> u32 {
        // SAFETY: `SERIAL_PORT` is the address of the board's UART, and `register` is one of its
        // registers. Reading has no effect on memory: it only takes a received byte.
        unsafe { (crate::SERIAL_PORT as *const u32).add(register).read_volatile() }
    }

    fn write_register(&mut self, register: usize, value: u32) {
        // SAFETY: `SERIAL_PORT` is the address of the board's UART, and `register` is one of its
        // registers, so the write does not change the program's memory.
        unsafe { (crate::SERIAL_PORT as *mut u32).add(register).write_volatile(value) }
    }
}

impl ErrorType for Serial {
    type Error = Infallible;
}

impl Read for Serial {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = to.first_mut() else { return Ok(0) };
        while self.read_register(STATE) & FULL_RECEIVED == 0 {}
        *first = self.read_register(DATA) as u8;
        Ok(1)
    }
}

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for byte in bytes {
            while self.read_register(STATE) & FULL_TO_SEND != 0 {}
            self.write_register(DATA, (*byte).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
