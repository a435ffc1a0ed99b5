//! Sizes in bytes with units.

/// Parses a size in bytes with an optional unit: 4096, 256KB, 1.5MiB.
///
/// # Errors
/// Returns a message with the allowed format if `text` is not a positive size.
///
/// # Examples
///
/// ```
/// use hardtack_targets::bytes;
///
/// assert_eq!(bytes("256KiB"), Ok(262_144));
/// assert_eq!(bytes("1.5MB"), Ok(1_500_000));
/// assert!(bytes("256K").is_err());
/// ```
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let number = number.parse::<f64>().unwrap_or(0.0);
    match (number * unit as f64) as u64 {
        0 => Err(format!(
            "{text:?} is not a size; write it like 256KiB, 1.5MB or 4096 (units: B, KB, MB, GB, KiB, \
             MiB, GiB)"
        )),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal_and_binary() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("256KB"), Ok(256_000));
        assert_eq!(bytes("1.5 MiB"), Ok(3 << 19));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        for wrong in ["", "0", "KB", "192K", "1..5MB", "-3", "1TB"] {
            assert!(bytes(wrong).unwrap_err().contains("is not a size"), "{wrong}");
        }
    }
}
