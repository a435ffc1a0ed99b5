//! Chooses which weights to prune. GPTQ rounding adjusts the remaining weights to compensate.
//!
//! Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
//! 2023. The score of a weight is its magnitude times that of its input (Sun et al., "A Simple and
//!   Effective Pruning Approach for Large Language Models", 2024).

use std::fmt;
use std::str::FromStr;

/// The weights to prune.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparsity {
    /// This fraction of each layer's weights, from 0 to 1.
    Part(f64),
    /// N:M structured sparsity: keeps `kept` of every `of` consecutive weights of a row.
    Pattern {
        /// The number of weights to keep (N).
        kept: usize,
        /// The number of consecutive weights (M).
        of: usize,
    },
}

impl FromStr for Sparsity {
    type Err = String;

    fn from_str(text: &str) -> Result<Sparsity, String> {
        let wrong = || "expected a percentage such as 50%, or a pattern such as 2:4".to_string();
        if let Some((kept, of)) = text.split_once(':') {
            let (kept, of) = (kept.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
            return match 0 < kept && kept < of && of <= 64 {
                true => Ok(Sparsity::Pattern { kept, of }),
                false => Err(wrong()),
            };
        }
        let part = text.strip_suffix('%').and_then(|part| part.trim().parse::<f64>().ok());
        let part = part.map(|part| part / 100.0).filter(|part| (0.0..1.0).contains(part));
        part.map(Sparsity::Part).ok_or_else(wrong)
    }
}

impl fmt::Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sparsity::Part(part) => write!(f, "{}%", 100.0 * part),
            Sparsity::Pattern { kept, of } => write!(f, "{kept}:{of}"),
        }
    }
}

impl Sparsity {
    /// Returns which weights to keep. `inputs` is the mean square of each input of a row.
    pub fn kept(self, rows: &[f32], inputs: &[f64]) -> Vec<bool> {
        let measure: Vec<f64> = rows
            .chunks_exact(inputs.len())
            .flat_map(|row| row.iter().zip(inputs).map(|(w, input)| f64::from(*w).powi(2) * input))
            .collect();
        let (each, zeros) = match self {
            Sparsity::Part(part) => (measure.len(), (part * measure.len() as f64) as usize),
            Sparsity::Pattern { kept, of } => (of, of - kept),
        };
        let mut stay = vec![true; measure.len()];
        // Patterns restart in each row; the last one of a row may be shorter.
        let row = if let Sparsity::Part(_) = self { measure.len() } else { inputs.len() };
        for start in (0..measure.len()).step_by(row.max(1)) {
            for from in (start..start + row).step_by(each.max(1)) {
                let mut order: Vec<usize> = (from..(from + each).min(start + row)).collect();
                order.sort_by(|a, b| measure[*a].total_cmp(&measure[*b]).then(a.cmp(b)));
                let fewer = zeros * order.len() / each.max(1);
                order[..fewer].iter().for_each(|at| stay[*at] = false);
            }
        }
        stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_patterns_are_parsed_and_printed() {
        for text in ["50%", "2:4", "1:4", "12.5%"] {
            assert_eq!(text.parse::<Sparsity>().unwrap().to_string(), text);
        }
        for text in ["", "2", "4:2", "0:4", "100%", "-5%", "a:b", "2:2"] {
            assert!(text.parse::<Sparsity>().is_err(), "{text}");
        }
    }

    #[test]
    fn weights_with_the_least_effect_are_pruned() {
        let rows = [0.1, -5.0, 3.0, 0.2, 1.0, 0.0, -2.0, 4.0, 9.0, 1.0];
        let kept = Sparsity::Pattern { kept: 2, of: 4 }.kept(&rows, &[1.0; 5]);
        assert_eq!(
            kept,
            [false, true, true, false, true, false, false, true, true, true].map(|k| k)
        );
        // A weight whose input is always small has little effect.
        let kept = Sparsity::Part(0.5).kept(&[1.0, 2.0, 1.0, 2.0], &[9.0, 1.0]);
        assert_eq!(kept, [true, false, true, false]);
    }
}
