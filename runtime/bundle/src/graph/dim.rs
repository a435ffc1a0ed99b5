//! Dimensions: numbers, or expressions over symbols.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// The maximum number of tokens in an expression.
const LIMIT_TOKENS: usize = 1024;
/// The maximum nesting depth of operations, so that code may visit an expression recursively.
const LIMIT_DEPTH: usize = 64;

/// One token of a dimension expression in postfix order. The list is flat, so decoding untrusted
/// bytes cannot recurse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Token {
    /// Push a number.
    Value(i64),
    /// Push the value of a symbol, given by its index in [`super::Graph::symbols`].
    Symbol(u32),
    /// Pop this many values, push their sum.
    Add(u32),
    /// Pop this many values, push their product.
    Multiply(u32),
    /// Pop one value, push its quotient by this number, rounded down.
    Divide(u64),
    /// Pop this many values, push the smallest.
    Minimum(u32),
    /// Pop this many values, push the largest.
    Maximum(u32),
    /// Pop this many values, push their broadcast size: the value that is not 1, if any. All values
    /// other than 1 must be equal.
    Broadcast(u32),
    /// Pop the right operand, then the left. Push 1 if left ≥ right, else 0.
    GreaterOrEqual,
    /// Pop two values. Push 1 if they are equal, else 0.
    Equal,
}

/// A dimension.
///
/// # Examples
///
/// The dimension `2 · seq + 1`, where `seq` is symbol 0:
///
/// ```
/// use hardtack_bundle::graph::{Dim, Token};
///
/// let dim = Dim::Expression(vec![
///     Token::Value(2),
///     Token::Symbol(0),
///     Token::Multiply(2),
///     Token::Value(1),
///     Token::Add(2),
/// ]);
/// assert_eq!(dim.evaluate(&[Some(16)]), Some(33));
/// assert_eq!(dim.evaluate(&[None]), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dim {
    /// A number.
    Value(i64),
    /// An expression in postfix order.
    Expression(Vec<Token>),
}

impl Dim {
    /// Returns the number, or `None` for an expression.
    pub fn value(&self) -> Option<i64> {
        match self {
            Dim::Value(value) => Some(*value),
            Dim::Expression(_) => None,
        }
    }

    /// Creates a dimension from the index of a symbol in [`super::Graph::symbols`].
    pub fn symbol(index: u32) -> Dim {
        Dim::Expression(alloc::vec![Token::Symbol(index)])
    }

    /// Returns the index of the symbol, if the dimension is a single symbol.
    pub fn as_symbol(&self) -> Option<u32> {
        match self {
            Dim::Expression(tokens) => match tokens.as_slice() {
                [Token::Symbol(index)] => Some(*index),
                _ => None,
            },
            Dim::Value(_) => None,
        }
    }

    /// Returns whether the dimension is well-formed: its expression uses only the first `symbols`
    /// symbols, leaves exactly one value, and has limited length and depth.
    pub fn is_sound(&self, symbols: usize) -> bool {
        match self {
            Dim::Value(_) => true,
            Dim::Expression(tokens) => is_sound(tokens, symbols).is_some(),
        }
    }

    /// Encodes dimensions as the bytes of a [`DType::Dim`](crate::DType::Dim) constant.
    pub fn list_to_bytes(dims: &[Dim]) -> Vec<u8> {
        let bytes = |dim: &Dim| postcard::to_allocvec(dim).expect("no dimension fails to encode");
        dims.iter().flat_map(bytes).collect()
    }

    /// Decodes `count` dimensions from the bytes of [`Dim::list_to_bytes`], for a graph with this
    /// number of symbols. Returns `None` if the bytes are malformed, if there are too few or too
    /// many, or if a dimension is not well-formed.
    pub fn list_from_bytes(mut bytes: &[u8], count: usize, symbols: usize) -> Option<Vec<Dim>> {
        let mut dims = Vec::new();
        for _ in 0..count {
            let (dim, rest) = postcard::take_from_bytes::<Dim>(bytes).ok()?;
            dims.push(dim.is_sound(symbols).then_some(dim)?);
            bytes = rest;
        }
        bytes.is_empty().then_some(dims)
    }

    /// Evaluates the dimension with `symbols[i]` as the value of symbol `i`.
    ///
    /// Returns `None` if a symbol has no value, or if the expression is malformed or overflows.
    pub fn evaluate(&self, symbols: &[Option<i64>]) -> Option<i64> {
        let tokens = match self {
            Dim::Value(value) => return Some(*value),
            Dim::Expression(tokens) => tokens,
        };
        let mut stack: Vec<i64> = Vec::new();
        for token in tokens {
            let result = match *token {
                Token::Value(value) => value,
                Token::Symbol(index) => (*symbols.get(index as usize)?)?,
                Token::Add(count) => {
                    pop(&mut stack, count)?.iter().try_fold(0i64, |sum, v| sum.checked_add(*v))?
                }
                Token::Multiply(count) => {
                    pop(&mut stack, count)?.iter().try_fold(1i64, |all, v| all.checked_mul(*v))?
                }
                Token::Divide(divisor) => {
                    stack.pop()?.checked_div_euclid(i64::try_from(divisor).ok()?)?
                }
                Token::Minimum(count) => *pop(&mut stack, count)?.iter().min()?,
                Token::Maximum(count) => *pop(&mut stack, count)?.iter().max()?,
                Token::Broadcast(count) => {
                    let all = pop(&mut stack, count)?;
                    let wide = all.iter().copied().find(|v| *v != 1).unwrap_or(1);
                    if all.iter().any(|v| *v != 1 && *v != wide) {
                        return None;
                    }
                    wide
                }
                Token::GreaterOrEqual => {
                    let (right, left) = (stack.pop()?, stack.pop()?);
                    (left >= right) as i64
                }
                Token::Equal => (stack.pop()? == stack.pop()?) as i64,
            };
            stack.push(result);
        }
        match stack.as_slice() {
            [value] => Some(*value),
            _ => None,
        }
    }
}

/// Checks an expression by tracking the depth of each value on the stack.
fn is_sound(tokens: &[Token], symbols: usize) -> Option<()> {
    if tokens.len() > LIMIT_TOKENS {
        return None;
    }
    let mut depths: Vec<usize> = Vec::new();
    for token in tokens {
        let operands = match *token {
            Token::Value(_) => 0,
            Token::Symbol(index) if (index as usize) < symbols => 0,
            Token::Symbol(_) => return None,
            Token::Add(count) | Token::Multiply(count) => count as usize,
            Token::Minimum(count) | Token::Maximum(count) | Token::Broadcast(count) => {
                (count > 0).then_some(count as usize)?
            }
            Token::Divide(divisor) => (1..=i64::MAX as u64).contains(&divisor).then_some(1)?,
            Token::GreaterOrEqual | Token::Equal => 2,
        };
        let rest = depths.len().checked_sub(operands)?;
        let depth = depths.drain(rest..).max().unwrap_or(0) + 1;
        if depth > LIMIT_DEPTH {
            return None;
        }
        depths.push(depth);
    }
    (depths.len() == 1).then_some(())
}

fn pop(stack: &mut Vec<i64>, count: u32) -> Option<Vec<i64>> {
    let at = stack.len().checked_sub(count as usize)?;
    Some(stack.split_off(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn expressions_evaluate() {
        let half_plus_one = Dim::Expression(vec![
            Token::Symbol(0),
            Token::Divide(2),
            Token::Value(1),
            Token::Add(2),
        ]);
        assert_eq!(half_plus_one.evaluate(&[Some(7)]), Some(4));
        assert_eq!(half_plus_one.evaluate(&[None]), None);
        assert_eq!(half_plus_one.evaluate(&[]), None);
    }

    #[test]
    fn lists_are_read_back() {
        let dims = [Dim::Value(-3), Dim::symbol(1), Dim::Value(1 << 40)];
        let bytes = Dim::list_to_bytes(&dims);
        assert_eq!(Dim::list_from_bytes(&bytes, 3, 2).as_deref(), Some(&dims[..]));
        assert_eq!(Dim::list_from_bytes(&bytes, 3, 1), None);
        assert_eq!(Dim::list_from_bytes(&bytes, 2, 2), None);
        assert_eq!(Dim::list_from_bytes(&bytes, usize::MAX, 2), None);
        assert_eq!(Dim::list_from_bytes(&bytes[1..], 3, 2), None);
    }

    #[test]
    fn malformed_expressions_have_no_value() {
        for tokens in [
            vec![],
            vec![Token::Add(2)],
            vec![Token::Value(1), Token::Value(2)],
            vec![Token::Value(1), Token::Divide(0)],
            vec![Token::Value(i64::MAX), Token::Value(2), Token::Multiply(2)],
            vec![Token::Value(2), Token::Value(3), Token::Broadcast(2)],
        ] {
            assert_eq!(Dim::Expression(tokens.clone()).evaluate(&[]), None, "{tokens:?}");
        }
    }

    #[test]
    fn soundness_does_not_depend_on_values() {
        let nested = |depth: usize| {
            let mut tokens = vec![Token::Symbol(0)];
            tokens.extend(vec![Token::Divide(2); depth - 1]);
            Dim::Expression(tokens)
        };
        assert!(Dim::Value(-1).is_sound(0));
        assert!(Dim::symbol(0).is_sound(1));
        assert!(!Dim::symbol(1).is_sound(1));
        assert!(nested(LIMIT_DEPTH).is_sound(1));
        assert!(!nested(LIMIT_DEPTH + 1).is_sound(1));
        for tokens in [
            vec![],
            vec![Token::Add(2)],
            vec![Token::Add(u32::MAX)],
            vec![Token::Value(1), Token::Value(2)],
            vec![Token::Value(1), Token::Divide(0)],
            vec![Token::Value(1), Token::Divide(u64::MAX)],
            vec![Token::Minimum(0)],
            vec![Token::Value(1), Token::Equal],
            vec![Token::Add(0); LIMIT_TOKENS + 1],
        ] {
            assert!(!Dim::Expression(tokens.clone()).is_sound(0), "{tokens:?}");
        }
    }
}
