//! Converts dimensions between our postfix expressions and tract's trees.

use hardtack_bundle::graph::{Dim, Token};
use tract_core::internal::*;

use super::error::Problem;
use super::measure::{check_dims, check_rank, check_shape};

/// The symbols of a graph, in its order. Each is bound to a number or known to tract by name.
pub(super) struct Symbols {
    /// The scope that owns the names.
    pub scope: SymbolScope,
    symbols: Vec<Symbol>,
    values: Vec<Option<i64>>,
}

impl Symbols {
    /// Creates symbols of these names in a new scope, with values for those that are bound.
    pub fn new(names: &[String], values: &[Option<i64>]) -> Symbols {
        let scope = SymbolScope::default();
        let symbols = names.iter().map(|name| scope.sym(name)).collect();
        let mut values = values.to_vec();
        values.resize(names.len(), None);
        Symbols { scope, symbols, values }
    }

    /// The value of each symbol that is bound.
    pub fn values(&self) -> Vec<Option<i64>> {
        self.values.clone()
    }

    /// Converts a dimension to tract, with the known values substituted.
    pub fn dim(&self, dim: &Dim) -> Result<TDim, Problem> {
        let tokens = match dim {
            Dim::Value(value) => return Ok(TDim::Val(*value)),
            Dim::Expression(tokens) => tokens,
        };
        match dim.evaluate(&self.values) {
            Some(value) => Ok(TDim::Val(value)),
            None => {
                let dim = self.tree(tokens).ok_or("it has a malformed dimension")?;
                check_dims(std::iter::once(std::slice::from_ref(&dim)))?;
                Ok(dim.simplify())
            }
        }
    }

    /// Converts all dimensions of a list. They may be negative.
    pub fn dims(&self, dims: &[Dim]) -> Result<TVec<TDim>, Problem> {
        dims.iter().map(|dim| self.dim(dim)).collect()
    }

    /// Converts all dimensions of a shape, and checks that tract can multiply them.
    pub fn shape(&self, dims: &[Dim]) -> Result<TVec<TDim>, Problem> {
        check_rank(dims.len())?;
        let dims = self.dims(dims)?;
        check_shape(&dims)?;
        Ok(dims)
    }

    fn tree(&self, tokens: &[Token]) -> Option<TDim> {
        let mut stack: Vec<TDim> = Vec::new();
        for token in tokens {
            let value = match *token {
                Token::Value(value) => TDim::Val(value),
                Token::Symbol(index) => match self.values.get(index as usize)? {
                    Some(value) => TDim::Val(*value),
                    None => TDim::Sym(self.symbols[index as usize].clone()),
                },
                Token::Add(count) => TDim::Add(pop(&mut stack, count)?),
                Token::Multiply(count) => match &*pop(&mut stack, count)? {
                    [TDim::Val(factor), dim] | [dim, TDim::Val(factor)] => {
                        TDim::MulInt(*factor, Box::new(dim.clone()))
                    }
                    factors => TDim::Mul(factors.into()),
                },
                Token::Divide(divisor) => TDim::Div(Box::new(stack.pop()?), divisor),
                Token::Minimum(count) => TDim::Min(pop(&mut stack, count)?),
                Token::Maximum(count) => TDim::Max(pop(&mut stack, count)?),
                Token::Broadcast(count) => TDim::Broadcast(pop(&mut stack, count)?),
                Token::GreaterOrEqual => {
                    let right = Box::new(stack.pop()?);
                    TDim::Ge(Box::new(stack.pop()?), right)
                }
                Token::Equal => {
                    let right = Box::new(stack.pop()?);
                    TDim::Eq(Box::new(stack.pop()?), right)
                }
            };
            stack.push(value);
        }
        let value = stack.pop()?;
        stack.is_empty().then_some(value)
    }
}

fn pop(stack: &mut Vec<TDim>, count: u32) -> Option<Vec<TDim>> {
    let at = stack.len().checked_sub(count as usize)?;
    Some(stack.split_off(at))
}

/// The names of the symbols encountered so far.
#[cfg(feature = "export")]
#[derive(Default)]
pub(super) struct SymbolNames(pub Vec<String>);

#[cfg(feature = "export")]
impl SymbolNames {
    /// Converts a dimension of tract to postfix order.
    pub fn dim(&mut self, dim: &TDim) -> Dim {
        if let TDim::Val(value) = dim {
            return Dim::Value(*value);
        }
        let mut tokens = Vec::new();
        self.postfix(dim, &mut tokens);
        Dim::Expression(tokens)
    }

    /// Converts all dimensions of a shape or list.
    pub fn dims<'d>(&mut self, dims: impl IntoIterator<Item = &'d TDim>) -> Vec<Dim> {
        dims.into_iter().map(|dim| self.dim(dim)).collect()
    }

    fn postfix(&mut self, dim: &TDim, tokens: &mut Vec<Token>) {
        let mut all = |these: &[TDim], tokens: &mut Vec<Token>| {
            these.iter().for_each(|dim| self.postfix(dim, tokens));
            these.len() as u32
        };
        let token = match dim {
            TDim::Val(value) => Token::Value(*value),
            TDim::Sym(symbol) => Token::Symbol(self.index(&symbol.to_string())),
            TDim::Add(terms) => Token::Add(all(terms, tokens)),
            TDim::Mul(factors) => Token::Multiply(all(factors, tokens)),
            TDim::MulInt(factor, dim) => {
                tokens.push(Token::Value(*factor));
                self.postfix(dim, tokens);
                Token::Multiply(2)
            }
            TDim::Div(dim, divisor) => {
                self.postfix(dim, tokens);
                Token::Divide(*divisor)
            }
            TDim::Broadcast(dims) => Token::Broadcast(all(dims, tokens)),
            TDim::Min(dims) => Token::Minimum(all(dims, tokens)),
            TDim::Max(dims) => Token::Maximum(all(dims, tokens)),
            TDim::Ge(left, right) => {
                self.postfix(left, tokens);
                self.postfix(right, tokens);
                Token::GreaterOrEqual
            }
            TDim::Eq(left, right) => {
                self.postfix(left, tokens);
                self.postfix(right, tokens);
                Token::Equal
            }
        };
        tokens.push(token);
    }

    fn index(&mut self, name: &str) -> u32 {
        let at = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.into());
            self.0.len() - 1
        });
        at as u32
    }
}

#[cfg(all(test, feature = "export"))]
mod tests {
    use super::*;

    const TEXTS: [&str; 10] = [
        "7",
        "N",
        "N+1",
        "2*N+3",
        "(N+1)/2",
        "N*M",
        "min(N,M)",
        "max(N,4)",
        "broadcast(N,M)",
        "N*M*3",
    ];

    #[test]
    fn expressions_survive_a_round_trip() {
        let scope = SymbolScope::default();
        let mut names = SymbolNames::default();
        for text in TEXTS {
            let dim = scope.parse_tdim(text).unwrap();
            let ours = names.dim(&dim);
            let symbols = Symbols::new(&names.0, &[]);
            let back = symbols.dim(&ours).unwrap();
            assert_eq!(back.to_string(), dim.to_string(), "{text}");
        }
        assert_eq!(names.0, ["N", "M"]);
    }

    #[test]
    fn bound_symbols_evaluate_as_in_tract() {
        let scope = SymbolScope::default();
        let (n, m) = (scope.sym("N"), scope.sym("M"));
        let values = SymbolValues::default().with(&n, 5).with(&m, 5);
        let mut names = SymbolNames::default();
        for text in TEXTS {
            let dim = scope.parse_tdim(text).unwrap();
            let ours = names.dim(&dim);
            let bound = Symbols::new(&names.0, &[Some(5), Some(5)]).dim(&ours).unwrap();
            assert_eq!(bound.to_i64().unwrap(), dim.eval_to_i64(&values).unwrap(), "{text}");
            let symbols = Symbols::new(&names.0, &[Some(5)]);
            let half = symbols.dim(&ours).unwrap();
            assert!(half.to_i64().is_ok() || half.to_string().contains('M'), "{text}: {half}");
        }
    }
}
