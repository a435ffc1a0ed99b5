//! Implements the serial protocol of MLPerf Tiny, so that the benchmark's runner can control the
//! board.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use embedded_io::Write as _;
use hardtack_firmware::board::{Clock, Serial};
use hardtack_firmware::protocol::{Device, Protocol};
use hardtack_firmware::{IS_AUTOENCODER, MODEL, Memory, Network, Refusal, SENT, Sent, bundle};

/// The network, its memory and the clock.
struct Measured {
    network: Network,
    memory: &'static mut Memory,
    clock: Clock,
}

impl Device for Measured {
    const MODEL: &'static str = MODEL;
    const SENT: Sent = SENT;

    fn input(&mut self) -> &mut [i8] {
        &mut self.memory.input
    }

    fn infer(&mut self) {
        // This cannot fail, because the memory has the sizes of this bundle.
        let _ = self.network.infer(self.memory);
    }

    fn result(&self, index: usize) -> Option<f32> {
        if IS_AUTOENCODER {
            return (index == 0).then(|| self.network.anomaly(self.memory));
        }
        self.memory.output.get(index).map(|integer| self.network.real(*integer))
    }

    fn microseconds(&mut self) -> u64 {
        self.clock.microseconds()
    }
}

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory::new();
    let peripherals = cortex_m::Peripherals::take().expect("the peripherals are taken only here");
    let clock = Clock::start(peripherals.SYST);
    let mut serial = Serial::start();
    match bundle().and_then(|bundle| Network::of(&bundle)) {
        Ok(network) => {
            let device = Measured { network, memory: MEMORY, clock };
            let Ok(mut protocol) = Protocol::new(device, serial);
            loop {
                let Ok(_) = protocol.command();
            }
        }
        Err(refusal) => loop {
            tell(&mut serial, refusal);
            cortex_m::asm::delay(1 << 24);
        },
    }
}

fn tell(serial: &mut Serial, refusal: Refusal) {
    let [before, after] = refusal.told();
    for part in ["e-[", before, refusal.name(), after, "]\r\n"] {
        let Ok(()) = serial.write_all(part.as_bytes());
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        cortex_m::asm::udf();
    }
}
