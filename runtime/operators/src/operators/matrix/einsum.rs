//! Einstein's summation convention.

use super::product::{Numbers, Products, Strides, Sum};
use crate::call::Call;
use crate::error::Problem;
use crate::meter;
use crate::shape::{Offsets, elements, strides};
use crate::value::Value;

/// The name of an axis: a letter, or the position in an ellipsis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// Numbers with named axes. The names differ.
struct Operand {
    labels: Vec<Label>,
    shape: Vec<usize>,
    numbers: Numbers,
}

/// Computes an Einstein summation: an equation names the axes of the operands by letters.
pub(super) fn einsum(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let equation = call.text("equation")?.ok_or(Problem::MissingAttribute { name: "equation" })?;
    let tensors = call.tensors()?;
    let Some(first) = tensors.first() else { return Err(Problem::MissingInput { index: 0 }) };
    let element = first.element();
    if let Some(other) = tensors.iter().find(|other| other.element() != element) {
        return Err(Problem::MixedTypes { first: element, second: other.element() });
    }
    let ranks: Vec<usize> = tensors.iter().map(|tensor| tensor.rank()).collect();
    let (terms, output) = parse(equation, &ranks)?;
    let mut operands = Vec::new();
    for (tensor, labels) in tensors.iter().zip(&terms) {
        operands.push(diagonal(labels, tensor.shape(), Numbers::of(tensor)?)?);
    }
    let mut operands = operands.into_iter();
    let mut result = operands.next().ok_or(Problem::MissingInput { index: 0 })?;
    while let Some(operand) = operands.next() {
        // Each label is searched for in the operands that are left.
        meter::spend(operands.len() as u64 * 4096)?;
        let kept = |label: &Label| {
            output.contains(label) || operands.as_slice().iter().any(|o| o.labels.contains(label))
        };
        result = contract(result, operand, kept)?;
    }
    let result = result.sum(|label| output.contains(label))?;
    let (shape, numbers) = result.arranged(&output, &[])?;
    Ok(vec![numbers.tensor(element, shape)?.into()])
}

/// Returns the labels of the operands, which have the given ranks, and of the output.
fn parse(equation: &str, ranks: &[usize]) -> Result<(Vec<Vec<Label>>, Vec<Label>), Problem> {
    let wrong = |what: &str| Problem::Invalid(format!("the equation {equation:?} {what}"));
    let text: String = equation.chars().filter(|letter| *letter != ' ').collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        let (terms, inputs) = (terms.len(), ranks.len());
        return Err(wrong(&format!("has {terms} terms for {inputs} operands")));
    }
    let mut covered: Option<usize> = None;
    let mut labels = Vec::new();
    for (term, rank) in terms.iter().zip(ranks) {
        let (before, dots, after) = match term.split_once("...") {
            Some((before, after)) => (before, true, after),
            None => (*term, false, ""),
        };
        let letters = before.len().saturating_add(after.len());
        let rest = rank.checked_sub(letters).filter(|rest| dots || *rest == 0);
        let rest =
            rest.ok_or_else(|| wrong(&format!("has term {term:?} for a tensor of {rank} axes")))?;
        if dots && *covered.get_or_insert(rest) != rest {
            return Err(wrong("has ellipses for different numbers of axes"));
        }
        let axes = (0..rest).map(Label::Ellipsis);
        let found = before.chars().map(Label::Letter).chain(axes);
        labels.push(found.chain(after.chars().map(Label::Letter)).collect::<Vec<_>>());
    }
    let all: Vec<Label> = labels.iter().flatten().copied().collect();
    meter::spend((all.len() as u64).saturating_mul(all.len() as u64))?;
    let output = match right {
        None => {
            let once = |label: &Label| match label {
                Label::Ellipsis(_) => true,
                label => all.iter().filter(|other| *other == label).count() == 1,
            };
            let mut output: Vec<Label> = all.iter().copied().filter(once).collect();
            output.sort();
            output.dedup();
            output
        }
        Some(right) => {
            let (before, dots, after) = match right.split_once("...") {
                Some((before, after)) => (before, covered.unwrap_or(0), after),
                None => (right, 0, ""),
            };
            let before = before.chars().map(Label::Letter);
            before
                .chain((0..dots).map(Label::Ellipsis))
                .chain(after.chars().map(Label::Letter))
                .collect()
        }
    };
    let is_letter = |label: &Label| match label {
        Label::Letter(letter) => letter.is_ascii_alphabetic(),
        Label::Ellipsis(_) => true,
    };
    if !all.iter().chain(&output).all(is_letter) {
        return Err(wrong("has characters other than letters, commas, spaces, '...' and '->'"));
    }
    let repeated = |(index, label): (usize, &Label)| output[..index].contains(label);
    if output.len() > all.len() || output.iter().enumerate().any(repeated) {
        return Err(wrong("has a letter twice in the output"));
    }
    if output.iter().any(|label| !all.contains(label)) {
        return Err(wrong("has a letter in the output that is not in a term"));
    }
    Ok((labels, output))
}

/// Names the axes of a tensor. Of axes with one name it keeps the diagonal.
fn diagonal(labels: &[Label], shape: &[usize], numbers: Numbers) -> Result<Operand, Problem> {
    let mut kept: Vec<Label> = Vec::new();
    let (mut sizes, mut steps): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    for ((label, size), stride) in labels.iter().zip(shape).zip(strides(shape)) {
        match kept.iter().position(|other| other == label) {
            Some(axis) if sizes[axis] != *size => {
                let (first, second) = (sizes[axis], *size);
                return Err(Problem::Invalid(format!(
                    "axes with one letter have sizes {first} and {second}, which must be equal"
                )));
            }
            Some(axis) => steps[axis] += stride,
            None => {
                kept.push(*label);
                sizes.push(*size);
                steps.push(stride);
            }
        }
    }
    let numbers = match kept.len() == labels.len() {
        true => numbers,
        false => gather(&numbers, Offsets::new(sizes.clone(), steps, 0)),
    };
    Ok(Operand { labels: kept, shape: sizes, numbers })
}

/// Returns the numbers at offsets, which are in range if the shapes were checked.
fn gather(numbers: &Numbers, offsets: Offsets) -> Numbers {
    fn pick<T: Copy + Default>(values: &[T], offsets: Offsets) -> Vec<T> {
        offsets.map(|offset| values.get(offset).copied().unwrap_or_default()).collect()
    }
    match numbers {
        Numbers::Floats(values) => Numbers::Floats(pick(values, offsets)),
        Numbers::Integers(values) => Numbers::Integers(pick(values, offsets)),
    }
}

impl Operand {
    fn size(&self, label: &Label) -> Option<usize> {
        self.labels.iter().zip(&self.shape).find(|(own, _)| *own == label).map(|(_, size)| *size)
    }

    /// Returns the numbers with their axes in an order. An axis takes its size from `sizes` if it
    /// has a name there, and is then broadcast.
    fn arranged(
        &self,
        order: &[Label],
        sizes: &[(Label, usize)],
    ) -> Result<(Vec<usize>, Numbers), Problem> {
        let own = strides(&self.shape);
        let (mut shape, mut steps) = (Vec::new(), Vec::new());
        for label in order {
            let axis = self.labels.iter().position(|own| own == label);
            let (size, stride) = axis.map_or((1, 0), |axis| (self.shape[axis], own[axis]));
            let wanted = sizes.iter().find(|(other, _)| other == label).map(|(_, size)| *size);
            shape.push(wanted.unwrap_or(size));
            steps.push(if size == 1 { 0 } else { stride });
        }
        elements(&shape)?;
        let numbers = match order == self.labels && shape == self.shape {
            true => self.numbers.clone(),
            false => gather(&self.numbers, Offsets::new(shape.clone(), steps, 0)),
        };
        Ok((shape, numbers))
    }

    /// Sums over the axes that are not kept.
    fn sum(self, kept: impl Fn(&Label) -> bool) -> Result<Self, Problem> {
        fn add<T: Sum>(values: &[T], count: usize, depth: usize) -> Vec<T> {
            let add = |sum: T, value: &T| sum.plus(*value, T::ONE);
            match depth {
                0 => vec![T::default(); count],
                _ => values
                    .chunks(depth)
                    .map(|values| values.iter().fold(T::default(), add))
                    .collect(),
            }
        }
        if self.labels.iter().all(&kept) {
            return Ok(self);
        }
        let (labels, others): (Vec<Label>, Vec<Label>) = self.labels.iter().partition(|l| kept(l));
        let (mut shape, numbers) = self.arranged(&[labels.clone(), others].concat(), &[])?;
        let depth = elements(&shape.split_off(labels.len()))?;
        let count = elements(&shape)?;
        let numbers = match &numbers {
            Numbers::Floats(values) => Numbers::Floats(add(values, count, depth)),
            Numbers::Integers(values) => Numbers::Integers(add(values, count, depth)),
        };
        Ok(Self { labels, shape, numbers })
    }
}

/// Multiplies two operands and sums over the axes that are not kept.
fn contract(a: Operand, b: Operand, kept: impl Fn(&Label) -> bool) -> Result<Operand, Problem> {
    let a = a.sum(|label| kept(label) || b.labels.contains(label))?;
    let b = b.sum(|label| kept(label) || a.labels.contains(label))?;
    let (mut batch, mut rows, mut columns, mut summed) = (vec![], vec![], vec![], vec![]);
    let mut sizes = Vec::new();
    let others = b.labels.iter().filter(|label| !a.labels.contains(label));
    for label in a.labels.iter().chain(others) {
        let size = match (a.size(label), b.size(label)) {
            (Some(a), Some(b)) if a == b || b == 1 => a,
            (Some(1) | None, Some(b)) => b,
            (Some(a), None) => a,
            (a, b) => {
                let (a, b) = (a.unwrap_or(1), b.unwrap_or(1));
                return Err(Problem::Invalid(format!(
                    "axes with one letter have sizes {a} and {b}, which must be equal"
                )));
            }
        };
        sizes.push((*label, size));
        match (kept(label), a.labels.contains(label), b.labels.contains(label)) {
            (false, ..) => summed.push((*label, size)),
            (true, true, true) => batch.push((*label, size)),
            (true, true, false) => rows.push((*label, size)),
            (true, false, _) => columns.push((*label, size)),
        }
    }
    let count = |axes: &[(Label, usize)]| {
        elements(&axes.iter().map(|(_, size)| *size).collect::<Vec<usize>>())
    };
    let (depth, m, n) = (count(&summed)?, count(&rows)?, count(&columns)?);
    let order = |parts: [&[(Label, usize)]; 3]| -> Vec<Label> {
        parts.into_iter().flatten().map(|(label, _)| *label).collect()
    };
    let (_, first) = a.arranged(&order([&batch, &rows, &summed]), &sizes)?;
    let (_, second) = b.arranged(&order([&batch, &columns, &summed]), &sizes)?;
    let matrices = if m == 0 || n == 0 { 0 } else { count(&batch)? };
    let products = Products {
        rows: m,
        depth,
        columns: n,
        a: Strides::rows(depth),
        b: Strides::rows(depth).transposed(),
        starts: (0..matrices).map(|index| (index * m * depth, index * n * depth)).collect(),
    };
    let numbers = products.of_numbers(&first, &second)?;
    let axes = [batch, rows, columns].concat();
    let (labels, shape) = axes.into_iter().unzip();
    Ok(Operand { labels, shape, numbers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> Vec<Label> {
        text.chars().map(Label::Letter).collect()
    }

    #[test]
    fn an_implicit_output_has_the_letters_that_occur_once() {
        assert_eq!(parse(" b a , a C", &[2, 2]).unwrap().1, letters("Cb"));
        let (terms, output) = parse("...b,b...a", &[3, 4]).unwrap();
        assert_eq!(terms[1], [letters("b"), output.clone()].concat());
        assert_eq!(output, [Label::Ellipsis(0), Label::Ellipsis(1), Label::Letter('a')]);
        assert_eq!(parse("ii", &[2]).unwrap().1, []);
        assert_eq!(parse("->", &[0]).unwrap().1, []);
    }

    #[test]
    fn malformed_equations_are_refused() {
        for (equation, ranks) in [
            ("ij", &[3][..]),
            ("ij,jk", &[2]),
            ("ij->ik", &[2]),
            ("ij->ii", &[2]),
            ("i1->i", &[2]),
            ("i...j...", &[2]),
            ("i->j->k", &[1]),
            ("...i,...i->i", &[2, 3]),
            ("i...", &[0]),
            ("i->i......", &[1]),
        ] {
            assert!(parse(equation, ranks).is_err(), "{equation}");
        }
    }
}
