//! Operators that select boxes in images.

use std::cmp::Ordering;

use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::meter::Tally;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "NonMaxSuppression") => non_max_suppression,
        _ => return None,
    })
}

/// Selects the boxes of each class by score that do not overlap too much with those selected.
fn non_max_suppression(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (boxes, scores) = (floats(call, 0)?, floats(call, 1)?);
    let (&[batches, count, 4], &[_, classes, _]) =
        (call.tensor(0)?.shape(), call.tensor(1)?.shape())
    else {
        return Err(shape_problem(call, 0, "be [batches, boxes, 4], and scores of rank 3"));
    };
    if call.tensor(1)?.shape() != [batches, classes, count] {
        return Err(shape_problem(call, 1, "be [batches, classes, boxes]"));
    }
    let limit = call.optional_tensor(2)?.map_or(Ok(0), Tensor::integer)?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let overlap = call.optional_tensor(3)?.map_or(Ok(0.0), Tensor::number)? as f32;
    if !(0.0..=1.0).contains(&overlap) {
        return Err(Problem::Invalid(format!(
            "the threshold of overlap is {overlap}; it must be from 0 to 1"
        )));
    }
    let least = call.optional_tensor(4)?.map(Tensor::number).transpose()?.map(|least| least as f32);
    let corners = match call.int_or("center_point_box", 0)? {
        0 => Area::of_corners,
        1 => Area::of_center,
        other => {
            return Err(Problem::AttributeValue {
                name: "center_point_box",
                value: other.to_string(),
                accepted: "0 or 1",
            });
        }
    };
    let areas: Vec<Area> = boxes.as_chunks().0.iter().map(corners).collect();
    let mut selected = Vec::new();
    for (batch, areas) in areas.chunks_exact(count.max(1)).enumerate() {
        let own = scores.chunks_exact(count.max(1)).skip(batch.saturating_mul(classes));
        for (class, scores) in own.take(classes).enumerate() {
            for index in select(areas, scores, limit, overlap, least)? {
                selected.extend([batch as i64, class as i64, index as i64]);
            }
        }
    }
    Ok(vec![Tensor::new(vec![selected.len() / 3, 3], selected)?.into()])
}

/// Returns the indices of the boxes that are selected for one class, from the highest score.
fn select(
    areas: &[Area],
    scores: &[f32],
    limit: usize,
    overlap: f32,
    least: Option<f32>,
) -> Result<Vec<usize>, Problem> {
    let mut tally = Tally::default();
    let mut order: Vec<usize> = (0..areas.len().min(scores.len()))
        .filter(|index| least.is_none_or(|least| scores[*index] > least))
        .collect();
    // The sort is stable: boxes of equal scores stay in the order of their indices.
    order.sort_by(|a, b| descending(scores[*a], scores[*b]));
    let mut selected: Vec<usize> = Vec::new();
    for index in order {
        if selected.len() >= limit {
            break;
        }
        tally.spend(selected.len() + 8)?;
        if !selected.iter().any(|other| areas[index].overlap(&areas[*other]) > overlap) {
            selected.push(index);
        }
    }
    Ok(selected)
}

/// Orders scores from high to low, with NaN last.
fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// A box with sides along the axes.
struct Area {
    x: [f32; 2],
    y: [f32; 2],
}

impl Area {
    /// Creates a box from two opposite corners `[y1, x1, y2, x2]`.
    fn of_corners(&[y1, x1, y2, x2]: &[f32; 4]) -> Self {
        Self { x: [x1.min(x2), x1.max(x2)], y: [y1.min(y2), y1.max(y2)] }
    }

    /// Creates a box from `[x_center, y_center, width, height]`.
    fn of_center(&[x, y, width, height]: &[f32; 4]) -> Self {
        let (half_width, half_height) = (width / 2.0, height / 2.0);
        Self { x: [x - half_width, x + half_width], y: [y - half_height, y + half_height] }
    }

    fn size(&self) -> f32 {
        (self.x[1] - self.x[0]) * (self.y[1] - self.y[0])
    }

    /// Returns the intersection divided by the union of two boxes.
    fn overlap(&self, other: &Self) -> f32 {
        let x = [self.x[0].max(other.x[0]), self.x[1].min(other.x[1])];
        let y = [self.y[0].max(other.y[0]), self.y[1].min(other.y[1])];
        if x[1] <= x[0] || y[1] <= y[0] {
            return 0.0;
        }
        let intersection = Self { x, y }.size();
        let (a, b) = (self.size(), other.size());
        let union = a + b - intersection;
        if a <= 0.0 || b <= 0.0 || union <= 0.0 || intersection <= 0.0 {
            return 0.0;
        }
        intersection / union
    }
}

fn floats<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a [f32], Problem> {
    let tensor = call.tensor(index)?;
    let wrong = Problem::InputType { index, found: tensor.element(), accepted: "float32" };
    tensor.slice().ok_or(wrong)
}

fn shape_problem(call: &Call<'_>, index: usize, expected: &str) -> Problem {
    let shape = call.tensor(index).map_or_else(|_| vec![], |tensor| tensor.shape().to_vec());
    Problem::InputShape { index, shape, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_keep_their_order_and_nan_is_last() {
        let areas = [0.0, 2.0, 4.0, 6.0].map(|x| Area { x: [x, x + 1.0], y: [0.0, 1.0] });
        let scores = [f32::NAN, 0.5, 0.75, 0.5];
        assert_eq!(select(&areas, &scores, 9, 0.0, None), Ok(vec![2, 1, 3, 0]));
        assert_eq!(select(&areas, &scores, 2, 0.0, None), Ok(vec![2, 1]));
        assert_eq!(select(&areas, &scores, 9, 0.0, Some(0.5)), Ok(vec![2]));
    }

    #[test]
    fn the_threshold_itself_is_not_too_much_overlap() {
        let areas = [[0.0, 0.0, 1.0, 1.0], [0.5, 1.0, 0.0, 0.0]].map(|c| Area::of_corners(&c));
        assert_eq!(areas[0].overlap(&areas[1]), 0.5);
        assert_eq!(select(&areas, &[2.0, 1.0], 9, 0.5, None), Ok(vec![0, 1]));
        assert_eq!(select(&areas, &[2.0, 1.0], 9, 0.49, None), Ok(vec![0]));
    }
}
