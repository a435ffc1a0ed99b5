//! The device side of the serial protocol of MLPerf Tiny. Commands end in `%`, and the last line of
//! each answer is `m-ready` (see `benchmark/api` and `benchmark/runner` of
//! github.com/mlcommons/tiny).

use embedded_io::{Read, Write};

use crate::Sent;

/// The maximum length of a command.
const COMMAND: usize = 80;
/// The number of bytes per line of `db print`.
const PRINTED: usize = 8;

/// The device under test.
pub trait Device {
    /// The name of the model, such as `kws01`.
    const MODEL: &'static str;
    /// The format of the input elements that the host sends.
    const SENT: Sent;

    /// Returns the input buffer.
    fn input(&mut self) -> &mut [i8];
    /// Runs one inference.
    fn infer(&mut self);
    /// Returns an element of the result, such as a dequantized output. `None` after the last one.
    fn result(&self, index: usize) -> Option<f32>;
    /// Returns the time since some fixed point, in microseconds.
    fn microseconds(&mut self) -> u64;
}

/// The protocol on a serial port.
pub struct Protocol<D, S> {
    device: D,
    port: S,
    /// Number of input bytes received.
    came: usize,
    /// Number of input bytes that `db load` announced.
    expected: usize,
    /// The bytes received of an incomplete element.
    part: [u8; 4],
}

impl<D: Device, S: Read + Write> Protocol<D, S> {
    /// Announces that the device is ready.
    ///
    /// # Errors
    /// Returns an error if the port fails.
    pub fn new(device: D, port: S) -> Result<Self, S::Error> {
        let mut protocol = Self { device, port, came: 0, expected: 0, part: [0; 4] };
        protocol.say(&["m-init-done\r\n", "m-ready\r\n"])?;
        Ok(protocol)
    }

    /// Reads a command and answers it. Returns `false` at the end of the input.
    ///
    /// # Errors
    /// Returns an error if the port fails.
    pub fn command(&mut self) -> Result<bool, S::Error> {
        let (mut line, mut length, mut byte) = ([0; COMMAND], 0, [0]);
        loop {
            if self.port.read(&mut byte)? == 0 {
                return Ok(false);
            }
            match byte[0] {
                b'%' => break,
                // A command that is too long is truncated, and is then unknown.
                other if length < COMMAND => {
                    line[length] = other;
                    length += 1;
                }
                _ => {}
            }
        }
        match core::str::from_utf8(&line[..length]) {
            Ok(line) => self.answer(line)?,
            Err(_) => self.say(&["e-[Command is no text]\r\n"])?,
        }
        self.say(&["m-ready\r\n"])?;
        Ok(true)
    }

    fn answer(&mut self, line: &str) -> Result<(), S::Error> {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("name") => self.say(&["m-name-dut-[hardtack]\r\n"]),
            Some("timestamp") => self.timestamp(),
            Some("profile") => {
                self.say(&["m-profile-[hardtack ", env!("CARGO_PKG_VERSION"), "]\r\n"])?;
                self.say(&["m-model-[", D::MODEL, "]\r\n"])
            }
            Some("help") => self.say(&[HELP]),
            Some("db") => self.buffer(words),
            Some("infer") => match (number(words.next(), 1), number(words.next(), 10)) {
                (Some(0) | None, _) => self.say(&["e-[Inference iterations must be >0]\r\n"]),
                (_, None) => self.say(&["e-[Inference warmup must be >=0]\r\n"]),
                (Some(count), Some(warmup)) => self.infer(count, warmup),
            },
            Some("results") => self.results(),
            other => self.say(&["e-[Unknown command: ", other.unwrap_or_default(), "]\r\n"]),
        }
    }

    fn infer(&mut self, count: u32, warmup: u32) -> Result<(), S::Error> {
        self.told("m-warmup-start-", warmup, "\r\n")?;
        (0..warmup).for_each(|_| self.device.infer());
        self.say(&["m-warmup-done\r\n"])?;
        self.told("m-infer-start-", count, "\r\n")?;
        self.timestamp()?;
        (0..count).for_each(|_| self.device.infer());
        self.timestamp()?;
        self.say(&["m-infer-done\r\n"])?;
        self.results()
    }

    fn timestamp(&mut self) -> Result<(), S::Error> {
        // The reference implementation also prints 32 bits.
        let now = self.device.microseconds() as u32;
        self.told("m-lap-us-", now, "\r\n")
    }

    /// Prints the result with three decimals.
    fn results(&mut self) -> Result<(), S::Error> {
        self.say(&["m-results-["])?;
        let mut index = 0;
        while let Some(real) = self.device.result(index) {
            let thousandths = (real.abs() * 1000.0 + 0.5) as u32;
            let sign = if real < 0.0 { "-" } else { "" };
            let comma = if index == 0 { "" } else { "," };
            self.say(&[comma, sign])?;
            self.told("", thousandths / 1000, ".")?;
            let digits = [100, 10, 1].map(|place| b'0' + (thousandths / place % 10) as u8);
            self.port.write_all(&digits)?;
            index += 1;
        }
        self.say(&["]\r\n"])
    }

    fn buffer<'a>(&mut self, mut words: impl Iterator<Item = &'a str>) -> Result<(), S::Error> {
        match words.next() {
            None => self.say(&["e-[Command 'db' requires a subcommand]\r\n"]),
            Some("load") => {
                let room = self.device.input().len() * D::SENT.size();
                match words.next().map(|word| number(Some(word), 0).unwrap_or(0) as usize) {
                    None => self.say(&["e-[Command 'db load' requires the # of bytes]\r\n"]),
                    Some(0) => self.say(&["e-[Command 'db load' must be >0 bytes]\r\n"]),
                    Some(bytes) if bytes > room => {
                        (self.came, self.expected) = (0, 0);
                        self.told("e-[The input has ", room as u32, " bytes]\r\n")
                    }
                    Some(bytes) => {
                        (self.came, self.expected) = (0, bytes);
                        self.told("m-[Expecting ", bytes as u32, " bytes]\r\n")
                    }
                }
            }
            Some("print") => self.print(),
            Some(digits) => self.load(digits.as_bytes()),
        }
    }

    /// Loads input bytes from hexadecimal digits, two per byte.
    fn load(&mut self, digits: &[u8]) -> Result<(), S::Error> {
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return self.say(&["e-[Insufficent number of hex digits]\r\n"]);
        }
        for pair in pairs {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (high, low) else {
                return self.say(&["e-[Invalid hex digit]\r\n"]);
            };
            if self.came == self.expected {
                return self.say(&["e-[More bytes than 'db load' said]\r\n"]);
            }
            let size = D::SENT.size();
            self.part[self.came % size] = (high << 4 | low) as u8;
            self.came += 1;
            if self.came.is_multiple_of(size) {
                let integer = D::SENT.integer(&self.part[..size]);
                self.device.input()[self.came / size - 1] = integer;
            }
            if self.came == self.expected {
                // The rest of the command is ignored, as in the reference implementation.
                return self.say(&["m-load-done\r\n"]);
            }
        }
        Ok(())
    }

    /// Prints the loaded integers of the input.
    fn print(&mut self) -> Result<(), S::Error> {
        let loaded = self.came / D::SENT.size();
        for index in 0..loaded {
            let byte = self.device.input()[index] as u8;
            let digits = [byte >> 4, byte & 15].map(|d| b"0123456789abcdef"[usize::from(d)]);
            if index % PRINTED == 0 {
                self.say(&["m-buffer-"])?;
            }
            self.port.write_all(&digits)?;
            let ends = index % PRINTED == PRINTED - 1 || index == loaded - 1;
            self.say(&[if ends { "\r\n" } else { "-" }])?;
        }
        Ok(())
    }

    fn say(&mut self, parts: &[&str]) -> Result<(), S::Error> {
        parts.iter().try_for_each(|part| self.port.write_all(part.as_bytes()))
    }

    fn told(&mut self, before: &str, number: u32, after: &str) -> Result<(), S::Error> {
        self.say(&[before])?;
        let (mut digits, mut first, mut rest) = ([0; 10], 10, number);
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.port.write_all(&digits[first..])?;
        self.say(&[after])
    }
}

/// Parses a number. Returns `otherwise` if there is no word, and `None` if it is not a number.
fn number(word: Option<&str>, otherwise: u32) -> Option<u32> {
    word.map_or(Some(otherwise), |word| word.parse().ok())
}

const HELP: &str = "\
help         : Print this information\r
name         : Print the name of the device\r
profile      : Print the firmware and its model\r
timestamp    : Generate a timestamp\r
db SUBCMD    : Manipulate the input\r
  load N     : Expect N bytes\r
  HH[HH]*    : Load 8-bit hex byte(s) until N bytes\r
  print      : Print the integers of the input as hex\r
infer N [W]  : Execute N inferences after W (10) warmup loops\r
results      : Print the result as real numbers\r
";

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;
    use std::string::{String, ToString as _};

    use super::*;

    /// A device that doubles its input.
    struct Doubling {
        input: [i8; 3],
        output: [i8; 3],
        runs: u64,
    }

    impl Device for Doubling {
        const MODEL: &'static str = "test01";
        const SENT: Sent = Sent::Real(2.0, 1);

        fn input(&mut self) -> &mut [i8] {
            &mut self.input
        }

        fn infer(&mut self) {
            self.output = self.input.map(|x| x.saturating_mul(2));
            self.runs += 1;
        }

        fn result(&self, index: usize) -> Option<f32> {
            self.output.get(index).map(|x| f32::from(*x) / 16.0)
        }

        fn microseconds(&mut self) -> u64 {
            self.runs * 7
        }
    }

    /// The host's end of a serial line.
    struct Line<'a>(VecDeque<u8>, &'a mut std::vec::Vec<u8>);

    impl embedded_io::ErrorType for Line<'_> {
        type Error = core::convert::Infallible;
    }

    impl Read for Line<'_> {
        fn read(&mut self, to: &mut [u8]) -> Result<usize, Self::Error> {
            let Some(byte) = self.0.pop_front() else { return Ok(0) };
            to[0] = byte;
            Ok(1)
        }
    }

    impl Write for Line<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    /// Returns the answers of the device, without the `m-ready` lines.
    fn talk(said: &str) -> String {
        let device = Doubling { input: [0; 3], output: [0; 3], runs: 0 };
        let mut answers = std::vec::Vec::new();
        let line = Line(said.bytes().collect(), &mut answers);
        let mut protocol = Protocol::new(device, line).unwrap();
        while protocol.command().unwrap() {}
        let text = String::from_utf8(answers).unwrap();
        let answers = text.strip_prefix("m-init-done\r\nm-ready\r\n").unwrap().to_string();
        answers.replace("m-ready\r\n", "")
    }

    #[test]
    fn the_device_identifies_itself() {
        assert_eq!(talk("name%"), "m-name-dut-[hardtack]\r\n");
        let profile = talk("\r\nprofile%");
        assert!(profile.starts_with("m-profile-[hardtack "), "{profile}");
        assert!(profile.ends_with("m-model-[test01]\r\n"), "{profile}");
        assert_eq!(talk("nothing%"), "e-[Unknown command: nothing]\r\n");
        assert_eq!(talk("%"), "e-[Unknown command: ]\r\n");
        assert!(talk(&"x".repeat(500).replace("%", "")).is_empty(), "no command ended");
        assert!(talk(&(String::from("name") + &"x".repeat(500) + "%")).starts_with("e-["));
    }

    #[test]
    fn the_device_loads_inputs_and_runs_inferences() {
        // 1.0, -2.0 and 0.25, which is a tie and rounds to even.
        let loaded = talk("db load 12%db 0000803f000000c0%db 0000803e%db print%");
        assert_eq!(loaded, "m-[Expecting 12 bytes]\r\nm-load-done\r\nm-buffer-03-fd-01\r\n");
        let inferred = talk("db load 12%db 0000803f000000c00000803e%infer 3 2%");
        assert_eq!(
            inferred,
            "m-[Expecting 12 bytes]\r\nm-load-done\r\nm-warmup-start-2\r\nm-warmup-done\r\n\
             m-infer-start-3\r\nm-lap-us-14\r\nm-lap-us-35\r\nm-infer-done\r\n\
             m-results-[0.375,-0.375,0.125]\r\n"
        );
    }

    #[test]
    fn invalid_commands_are_reported() {
        assert_eq!(talk("db%"), "e-[Command 'db' requires a subcommand]\r\n");
        assert_eq!(talk("db load%"), "e-[Command 'db load' requires the # of bytes]\r\n");
        assert_eq!(talk("db load x%"), "e-[Command 'db load' must be >0 bytes]\r\n");
        assert_eq!(
            talk("db load 13%db 00%"),
            "e-[The input has 12 bytes]\r\ne-[More bytes than 'db load' said]\r\n"
        );
        assert_eq!(talk("db 00%"), "e-[More bytes than 'db load' said]\r\n");
        assert!(talk("db load 4%db 0%").ends_with("e-[Insufficent number of hex digits]\r\n"));
        assert!(talk("db load 4%db 0g%").ends_with("e-[Invalid hex digit]\r\n"));
        assert_eq!(talk("infer 0%"), "e-[Inference iterations must be >0]\r\n");
        assert_eq!(talk("infer -1%"), "e-[Inference iterations must be >0]\r\n");
        assert_eq!(talk("infer 1 -1%"), "e-[Inference warmup must be >=0]\r\n");
    }

    #[test]
    fn numbers_are_rounded_to_nearest() {
        use crate::conversion::quantized;
        let reals = [0.5, 1.5, -0.5, -1.5, 2.4, -2.6, 1e30, -1e30, f32::NAN, f32::INFINITY];
        let integers = reals.map(|real| quantized(real, 1.0, 0));
        assert_eq!(integers, [0, 2, 0, -2, 2, -3, 127, -128, 0, 127]);
        assert_eq!(quantized(-126.6, 1.0, -1), -128);
    }
}
