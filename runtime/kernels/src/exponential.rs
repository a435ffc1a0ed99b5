//! The exponential table of softmax.

/// Returns `round(exp(−d · scale) · 2²⁴)` for d from 0 to 255: the table of
/// [`Softmax`](crate::Softmax) for an input with this scale, which must be positive and finite.
///
/// Uses only additions, multiplications and divisions, so the table is identical on every host.
pub fn softmax_table(scale: f32) -> [u32; 256] {
    let mut table = [0; 256];
    for (distance, entry) in table.iter_mut().enumerate() {
        let value = exponential_of_negative(distance as f64 * f64::from(scale));
        *entry = (value * f64::from(1 << 24) + 0.5) as u32;
    }
    table
}

/// Returns exp(−x) for x ≥ 0.
fn exponential_of_negative(x: f64) -> f64 {
    // e⁻¹⁷·² is less than half of 2⁻²⁴.
    if x > 32.0 {
        return 0.0;
    }
    let part = x / 256.0;
    // The Taylor series of exp(part), part ≤ 1/8, to more than the precision of an f64.
    let series = (1..=14).rev().fold(1.0, |sum, n| 1.0 + sum * part / f64::from(n));
    let whole = (0..8).fold(series, |power, _| power * power);
    1.0 / whole
}

#[cfg(test)]
mod tests {
    use super::softmax_table;

    #[test]
    fn tables_match_the_exponential() {
        for scale in [1e-6, 0.001, 0.0123, 0.1, 0.5, 1.0, 7.0, 1e30] {
            for (distance, entry) in softmax_table(scale).into_iter().enumerate() {
                let exact = (-(distance as f64) * f64::from(scale)).exp() * 16_777_216.0;
                assert!((f64::from(entry) - exact).abs() <= 0.5 + 1e-6, "{scale} {distance}");
            }
        }
        assert_eq!(softmax_table(0.1)[0], 1 << 24);
    }
}
