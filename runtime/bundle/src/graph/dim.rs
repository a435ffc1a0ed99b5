//! A dimension: a number, or an expression over symbols.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Most steps of an expression.
const LIMIT_TOKENS: usize = 1024;
/// How deep operations nest at most, so that a tree made of an expression may be walked.
const LIMIT_DEPTH: usize = 64;

/// One step of a dimension expression in postfix order. A flat list instead of a tree keeps
/// foreign bytes from recursing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Token {
    /// Push a number.
    Value(i64),
    /// Push a symbol, an index into [`super::Graph::symbols`].
    Symbol(u32),
    /// Pop this many, push their sum.
    Add(u32),
    /// Pop this many, push their product.
    Multiply(u32),
    /// Pop one, push it divided by this, rounded down.
    Divide(u64),
    /// Pop this many, push the least.
    Minimum(u32),
    /// Pop this many, push the greatest.
    Maximum(u32),
    /// Pop this many, push the one that is not 1; all others must be equal to it.
    Broadcast(u32),
    /// Pop right, pop left, push 1 if left ≥ right, else 0.
    GreaterOrEqual,
    /// Pop right, pop left, push 1 if equal, else 0.
    Equal,
}

/// A dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dim {
    /// A number.
    Value(i64),
    /// An expression in postfix order.
    Expression(Vec<Token>),
}

impl Dim {
    /// The number, if it is one.
    pub fn value(&self) -> Option<i64> {
        match self {
            Dim::Value(value) => Some(*value),
            Dim::Expression(_) => None,
        }
    }

    /// A symbol by its index in [`super::Graph::symbols`].
    pub fn symbol(index: u32) -> Dim {
        Dim::Expression(alloc::vec![Token::Symbol(index)])
    }

    /// The symbol's index, if the dimension is a bare symbol.
    pub fn as_symbol(&self) -> Option<u32> {
        match self {
            Dim::Expression(tokens) => match tokens.as_slice() {
                [Token::Symbol(index)] => Some(*index),
                _ => None,
            },
            Dim::Value(_) => None,
        }
    }

    /// Whether it can be evaluated, given values for that many symbols: an expression of known
    /// symbols that leaves one value, of limited length and depth.
    pub fn is_sound(&self, symbols: usize) -> bool {
        match self {
            Dim::Value(_) => true,
            Dim::Expression(tokens) => is_sound(tokens, symbols).is_some(),
        }
    }

    /// Several dimensions as the bytes of a constant of dimensions.
    pub fn list_to_bytes(dims: &[Dim]) -> Vec<u8> {
        let bytes = |dim: &Dim| postcard::to_allocvec(dim).expect("no dimension fails to encode");
        dims.iter().flat_map(bytes).collect()
    }

    /// Reads what [`Dim::list_to_bytes`] wrote: `count` dimensions of a graph with that many
    /// symbols. `None` where the bytes are others, too few or too many, or one is not sound.
    pub fn list_from_bytes(mut bytes: &[u8], count: usize, symbols: usize) -> Option<Vec<Dim>> {
        let mut dims = Vec::new();
        for _ in 0..count {
            let (dim, rest) = postcard::take_from_bytes::<Dim>(bytes).ok()?;
            dims.push(dim.is_sound(symbols).then_some(dim)?);
            bytes = rest;
        }
        bytes.is_empty().then_some(dims)
    }

    /// Evaluates with `symbols[i]` for symbol `i`.
    ///
    /// `None` where a symbol has no value, the expression is malformed, or it overflows.
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

/// Walks an expression with the depth of each value on the stack.
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
    fn lists_are_read_as_they_were_written() {
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
    fn soundness_is_told_without_values() {
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
