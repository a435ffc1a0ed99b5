//! Arm's MPS2 boards: their serial port and their clock.

use core::convert::Infallible;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use embedded_io::{ErrorType, Read, Write};

use crate::TICKS_PER_SECOND;

/// SysTick counts down from here.
const RELOAD: u32 = 0x00ff_ffff;

static WRAPS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    // Nobody else writes, and not every Cortex-M has atomic sums.
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The processor's clock.
pub struct Clock(SYST);

impl Clock {
    /// Starts it.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(RELOAD);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self(timer)
    }

    /// Ticks since it was started.
    pub fn ticks(&self) -> u64 {
        loop {
            let wraps = WRAPS.load(Ordering::Relaxed);
            let current = SYST::get_current();
            if wraps == WRAPS.load(Ordering::Relaxed) {
                return u64::from(wraps) * (u64::from(RELOAD) + 1) + u64::from(RELOAD - current);
            }
        }
    }

    /// The same in microseconds.
    pub fn microseconds(&self) -> u64 {
        self.ticks() * 1_000_000 / TICKS_PER_SECOND
    }
}

/// The first serial port: Arm's CMSDK APB UART.
pub struct Serial(());

/// Registers, in words from the first.
const DATA: usize = 0;
const STATE: usize = 1;
const CONTROL: usize = 2;
const DIVIDER: usize = 4;
/// Bits of the state.
const FULL_TO_SEND: u32 = 1;
const FULL_RECEIVED: u32 = 2;

const BAUD: u64 = 115_200;

impl Serial {
    /// Switches it on. There is one: the peripherals that are taken stand for it.
    pub fn start() -> Self {
        let mut serial = Self(());
        serial.write_register(DIVIDER, (TICKS_PER_SECOND / BAUD) as u32);
        serial.write_register(CONTROL, 3);
        serial
    }

    fn read_register(&self, register: usize) -> u32 {
        // SAFETY: the board has the register at this address, and reading it has no other effect
        // than that a received byte is taken.
        unsafe { (crate::SERIAL_PORT as *const u32).add(register).read_volatile() }
    }

    fn write_register(&mut self, register: usize, value: u32) {
        // SAFETY: the board has the register at this address, which is no memory of the program's.
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
