//! Chooses which weights to prune. GPTQ rounding adjusts the remaining weights to compensate.
//!
//! Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
//! 2023. The score of a weight is its magnitude times that of its input (Sun et al., "A Simple and
//! Effective Pruning Approach for Large Language Models", 2024).

use crate::options::quantize::Sparsity;

/// Returns which weights to keep. `inputs` is the mean square of each input of a row.
pub(super) fn kept(sparsity: Sparsity, rows: &[f32], inputs: &[f64]) -> Vec<bool> {
    let measure: Vec<f64> = rows
        .chunks_exact(inputs.len())
        .flat_map(|row| row.iter().zip(inputs).map(|(w, input)| f64::from(*w).powi(2) * input))
        .collect();
    let (each, zeros) = match sparsity {
        Sparsity::Part(part) => (measure.len(), (part * measure.len() as f64) as usize),
        Sparsity::Pattern { kept, of } => (of, of - kept),
    };
    let mut stay = vec![true; measure.len()];
    // Patterns restart in each row; the last one of a row may be shorter.
    let row = if let Sparsity::Part(_) = sparsity { measure.len() } else { inputs.len() };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_with_the_least_effect_are_pruned() {
        let rows = [0.1, -5.0, 3.0, 0.2, 1.0, 0.0, -2.0, 4.0, 9.0, 1.0];
        let kept = super::kept(Sparsity::Pattern { kept: 2, of: 4 }, &rows, &[1.0; 5]);
        assert_eq!(
            kept,
            [false, true, true, false, true, false, false, true, true, true].map(|k| k)
        );
        // A weight whose input is always small has little effect.
        let kept = super::kept(Sparsity::Part(0.5), &[1.0, 2.0, 1.0, 2.0], &[9.0, 1.0]);
        assert_eq!(kept, [true, false, true, false]);
    }
}
