//! Expresses the sizes that a trace showed in terms of the named dimensions of the inputs.

use super::synthetic::Sizes;

/// Returns the expression of a size from its values in all runs: a number, or a linear function of
/// one named dimension. `None` if there is none.
pub(crate) fn expression(values: &[usize], runs: &[Sizes]) -> Option<String> {
    let first = *values.first()?;
    if values.iter().all(|value| *value == first) {
        return Some(first.to_string());
    }
    let mut names: Vec<&String> = runs.first()?.keys().collect();
    names.sort();
    names.into_iter().find_map(|name| {
        let sizes: Option<Vec<i64>> =
            runs.iter().map(|sizes| i64::try_from(*sizes.get(name)?).ok()).collect();
        linear(name, &sizes?, values)
    })
}

/// Returns `factor * name + rest`, or `name / divisor + rest`, if that gives all values.
fn linear(name: &str, sizes: &[i64], values: &[usize]) -> Option<String> {
    let values: Vec<i64> = values.iter().map(|v| i64::try_from(*v).ok()).collect::<Option<_>>()?;
    let ([a, b, ..], [x, y, ..]) = (sizes, &values[..]) else { return None };
    let (run, rise) = (b - a, y - x);
    if run == 0 {
        return None;
    }
    let (text, scaled): (String, Box<dyn Fn(i64) -> i64>) = if rise % run == 0 {
        let factor = rise / run;
        let text = if factor == 1 { name.to_string() } else { format!("{factor}*{name}") };
        (text, Box::new(move |size| factor * size))
    } else if rise != 0 && run % rise == 0 {
        let divisor = run / rise;
        if sizes.iter().any(|size| size % divisor != 0) {
            return None;
        }
        (format!("{name}/{divisor}"), Box::new(move |size| size / divisor))
    } else {
        return None;
    };
    let rest = x - scaled(*a);
    let holds = sizes.iter().zip(&values).all(|(size, value)| scaled(*size) + rest == *value);
    holds.then(|| match rest {
        0 => text,
        1.. => format!("{text} + {rest}"),
        _ => format!("{text} - {}", -rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_or_linear_functions_of_one_name() {
        let runs: Vec<Sizes> = [(2, 32), (3, 64), (5, 160)]
            .map(|(n, h)| Sizes::from([("n".into(), n), ("h".into(), h)]))
            .into();
        let expect = |values: [usize; 3], text: Option<&str>| {
            assert_eq!(expression(&values, &runs).as_deref(), text, "{values:?}");
        };
        expect([7, 7, 7], Some("7"));
        expect([2, 3, 5], Some("n"));
        expect([5, 7, 11], Some("2*n + 1"));
        expect([31, 63, 159], Some("h - 1"));
        expect([16, 32, 80], Some("h/2"));
        expect([4, 9, 25], None);
    }
}
