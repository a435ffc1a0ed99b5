//! A measurement as one line of JSON, for comparison on another machine.

use std::fmt::{self, Write as _};

use super::{Machine, Measurement};

impl Measurement {
    /// Returns the measurement and the machine's own readings as one line of JSON.
    pub fn json(&self) -> String {
        let ms = |part: f64| Number(Some(self.percentile_ms(part)));
        let Machine { model, governor, frequency_mhz, most_mhz, temperature, .. } = &self.before;
        let after = &self.after;
        let degrees = |thousandths: Option<i32>| Number(thousandths.map(|t| f64::from(t) / 1000.0));
        let mhz = |mhz: Option<u32>| Number(mhz.map(f64::from));
        let throttled = match after.was_throttled_since(&self.before) {
            Some(throttled) => throttled.to_string(),
            None => "null".into(),
        };
        let energy = after.energy_since(&self.before);
        let energy = energy.map(|energy| energy as f64 / 1e3 / self.times.len().max(1) as f64);
        let mut line = String::new();
        // Writing into a string cannot fail.
        let _ = write!(
            line,
            "{{\"latency_ms\": {{\"p50\": {}, \"p90\": {}, \"p99\": {}, \"min\": {}}}, \
             \"noise\": {}, \"runs\": {}, \"load_ms\": {}, \"first_result_ms\": {}, \
             \"peak_rss_bytes\": {}, \"arena_bytes\": {}, \"isa\": \"{}\", \"threads\": {}, \
             \"weights\": \"{}\", \"integer\": {}, \
             \"machine\": {{\"model\": {}, \"governor\": {}, \
             \"frequency_mhz\": {{\"before\": {}, \"after\": {}, \"most\": {}}}, \
             \"temperature_c\": {{\"before\": {}, \"after\": {}}}, \"throttled\": {throttled}, \
             \"energy_mj_per_run\": {}}}}}",
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(0.0),
            Number(Some(self.noise)),
            self.times.len(),
            Number(Some(self.load.as_secs_f64() * 1e3)),
            Number(Some(self.first_result.as_secs_f64() * 1e3)),
            Number(self.peak_memory.map(|bytes| bytes as f64)),
            self.arena_bytes,
            self.isa,
            self.threads,
            if self.in_place { "in place" } else { "repacked" },
            self.integer,
            Text(model.as_deref()),
            Text(governor.as_deref()),
            mhz(*frequency_mhz),
            mhz(after.frequency_mhz),
            mhz(*most_mhz),
            degrees(*temperature),
            degrees(after.temperature),
            Number(energy),
        );
        line
    }
}

/// A finite number, or `null`.
struct Number(Option<f64>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.filter(|number| number.is_finite()) {
            Some(number) => number.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// A quoted string, or `null`.
struct Text<'a>(Option<&'a str>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(text) = self.0 else { return f.write_str("null") };
        f.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_and_unknown_values_are_null() {
        assert_eq!(Text(Some("a \"b\"\\\n")).to_string(), r#""a \"b\"\\\u000a""#);
        assert_eq!(Text(None).to_string(), "null");
        assert_eq!(Number(Some(0.25)).to_string(), "0.25");
        assert_eq!(Number(Some(f64::NAN)).to_string(), "null");
    }
}
