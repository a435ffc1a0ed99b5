//! Padding.

use super::reshape::movement::take;
use super::reshape::required_list;
use crate::call::{Call, Operator};
use crate::error::Problem;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    match (domain, name) {
        ("", "Pad") => Some(pad),
        _ => None,
    }
}

/// What padding consists of.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

/// The padding of an axis.
#[derive(Clone, Copy)]
struct Padding {
    /// The elements added in front; negative for removed ones.
    begin: i128,
    /// The first and the last position that are not removed. Padding reads only these.
    kept: (i128, i128),
    mode: Mode,
}

impl Padding {
    /// Returns the padding of an axis, and the resulting size.
    fn new(size: usize, begin: i64, end: i64, mode: Mode) -> Result<(Self, usize), Problem> {
        let (begin, end) = (i128::from(begin), i128::from(end));
        let padded = size as i128 + begin + end;
        let wrong = |what| {
            let ends = format!("pads {begin} and {end} of an axis of size {size}");
            Problem::Invalid(format!("{ends} {what}"))
        };
        let padded = usize::try_from(padded).map_err(|_| wrong("remove more than there is"))?;
        let kept = ((-begin).max(0), size as i128 - 1 - (-end).max(0));
        if mode != Mode::Constant && padded > 0 && kept.0 > kept.1 {
            return Err(wrong("leave nothing to pad with; only a constant can pad it"));
        }
        Ok((Self { begin, kept, mode }, padded))
    }

    /// Returns the position of the element at an index of the padded axis, if it has one.
    fn position(&self, index: usize) -> Option<usize> {
        let (first, last) = self.kept;
        let position = index as i128 - self.begin;
        let position = if (first..=last).contains(&position) {
            position
        } else {
            match self.mode {
                Mode::Constant => return None,
                Mode::Edge => position.clamp(first, last.max(first)),
                // The period has each of the two ends once.
                Mode::Reflect => {
                    let place = (position - first).checked_rem_euclid(2 * (last - first));
                    let place = place.unwrap_or(0);
                    first + place.min(2 * (last - first) - place)
                }
                Mode::Wrap => first + (position - first).checked_rem_euclid(last - first + 1)?,
            }
        };
        usize::try_from(position).ok()
    }
}

/// Adds elements at the ends of each axis, or removes some.
fn pad(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let mode = match call.text("mode")?.unwrap_or("constant") {
        "constant" => Mode::Constant,
        "edge" => Mode::Edge,
        "reflect" => Mode::Reflect,
        "wrap" => Mode::Wrap,
        mode => {
            return Err(Problem::AttributeValue {
                name: "mode",
                value: mode.into(),
                accepted: "constant, edge, reflect or wrap",
            });
        }
    };
    let pads = required_list(call, "pads", 1, 11)?;
    let axes = if call.version < 18 { None } else { call.optional_ints(3)? };
    let axes = match axes {
        Some(axes) => shape::axes(&axes, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Problem::Invalid(format!(
            "there are {} pads; there must be two for each of {} axes",
            pads.len(),
            axes.len()
        )));
    }
    let (begins, ends) = pads.split_at(axes.len());
    let mut sizes = x.shape().to_vec();
    let unpadded = |size: &usize| Padding::new(*size, 0, 0, Mode::Constant).map(|(new, _)| new);
    let mut paddings = sizes.iter().map(unpadded).collect::<Result<Vec<_>, _>>()?;
    for ((axis, begin), end) in axes.into_iter().zip(begins).zip(ends) {
        (paddings[axis], sizes[axis]) = Padding::new(sizes[axis], *begin, *end, mode)?;
    }
    let fill = match call.version < 11 {
        true => {
            let value = call.float_or("value", 0.0)?.into();
            Some(Tensor::from_f64(x.element(), vec![], vec![value])?)
        }
        false => call.optional_tensor(2)?.cloned(),
    };
    let fill = fill.as_ref().filter(|_| mode == Mode::Constant);
    let y = take(x, sizes, fill, |axis, index| paddings[axis].position(index))?;
    Ok(vec![y.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pads an axis of size 4.
    fn padded(begin: i64, end: i64, mode: Mode) -> Option<Vec<Option<usize>>> {
        let (padding, size) = Padding::new(4, begin, end, mode).ok()?;
        Some((0..size).map(|index| padding.position(index)).collect())
    }

    #[test]
    fn removed_elements_are_not_padding() {
        let some = |positions: &[usize]| Some(positions.iter().copied().map(Some).collect());
        assert_eq!(padded(-1, 3, Mode::Edge), some(&[1, 2, 3, 3, 3, 3]));
        assert_eq!(padded(3, -1, Mode::Wrap), some(&[0, 1, 2, 0, 1, 2]));
        assert_eq!(padded(-1, 3, Mode::Reflect), some(&[1, 2, 3, 2, 1, 2]));
        assert_eq!(padded(-3, 2, Mode::Reflect), some(&[3, 3, 3]));
        assert_eq!(padded(5, -4, Mode::Edge), None);
        assert_eq!(padded(-5, 2, Mode::Constant), Some(vec![None]));
        assert_eq!(padded(-4, 0, Mode::Wrap), Some(vec![]));
        assert_eq!(padded(-5, 0, Mode::Constant), None);
    }

    #[test]
    fn reflections_go_back_and_forth() {
        let positions = padded(7, 4, Mode::Reflect).unwrap();
        let positions: Vec<usize> = positions.into_iter().flatten().collect();
        assert_eq!(positions, [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
    }
}
