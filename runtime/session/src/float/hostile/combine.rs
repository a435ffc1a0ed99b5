//! Operators that combine elements along axes.

use hardtack_bundle::DType;
use hardtack_bundle::graph::*;

use super::Maker;

impl Maker {
    pub(super) fn combine(&mut self) {
        match self.random.below(8) {
            0..4 => self.einsum(),
            4 | 5 => self.reduce(),
            6 => {
                let rank = self.random.below(4);
                let (x, _) = self.real(rank);
                let axes = self.some_axes(rank);
                let operator = match self.random.below(3) {
                    0 => Operator::Softmax(Softmax { axes, logarithm: self.random.one_in(2) }),
                    1 => Operator::RmsNorm(RmsNorm {
                        axis: self.random.below(rank) as u32,
                        epsilon: 1e-5,
                    }),
                    _ => Operator::Lrn(Lrn {
                        alpha: 1.0,
                        beta: 0.5,
                        bias: 1.0,
                        size: self.random.below(5) as u32,
                    }),
                };
                self.add(operator, &[x]);
            }
            _ => {
                let (x, fact) = self.any();
                let axis = self.random.below(fact.rank()) as u32;
                let (exclusive, reverse) = (self.random.one_in(2), self.random.one_in(2));
                self.add(Operator::CumSum(CumSum { axis, exclusive, reverse }), &[x]);
            }
        }
    }

    fn some_axes(&mut self, rank: usize) -> Vec<u32> {
        (0..rank as u32).filter(|_| self.random.one_in(2)).collect()
    }

    fn reduce(&mut self) {
        use Reducer::*;
        let (x, fact) = self.any();
        let axes = self.some_axes(fact.rank());
        let last = self.random.one_in(2);
        let kinds = [
            ArgMax { last },
            ArgMin { last },
            Maximum,
            Minimum,
            Product,
            Sum,
            Sum,
            MeanOfSquares,
            All,
            Any,
        ];
        let reducer = self.random.pick(&kinds);
        self.add(Operator::Reduce(Reduce { axes, reducer }), &[x]);
    }

    fn einsum(&mut self) {
        const LETTERS: [char; 5] = ['a', 'b', 'c', 'd', 'e'];
        let sizes: Vec<i64> = LETTERS.iter().map(|_| self.size()).collect();
        let dtype = if self.random.one_in(6) { self.dtype() } else { DType::F32 };
        let mut terms: Vec<String> = vec![];
        let mut inputs = vec![];
        for _ in 0..if self.random.one_in(6) { 1 + self.random.below(3) } else { 2 } {
            let (mut term, mut shape) = (String::new(), vec![]);
            let mut letters: Vec<usize> = (0..LETTERS.len()).collect();
            let mut volume = 1;
            for _ in 0..self.random.below(4) {
                let at = self.random.below(letters.len());
                let letter = if self.random.one_in(20) { letters[at] } else { letters.remove(at) };
                let size = if self.random.one_in(8) { 1 } else { sizes[letter] };
                if volume * size.max(1) > super::ELEMENTS {
                    continue;
                }
                volume *= size.max(1);
                term.push(LETTERS[letter]);
                shape.push(size);
            }
            inputs.push(self.value(dtype, &shape));
            terms.push(term);
        }
        let mut output: Vec<char> = vec![];
        for letter in LETTERS {
            let there = terms.iter().any(|term| term.contains(letter));
            if there && self.random.one_in(2) || self.random.one_in(20) {
                let at = self.random.below(output.len() + 1);
                output.insert(at, letter);
            }
        }
        let output: String = output.into_iter().collect();
        let accumulator = if self.random.one_in(6) { self.dtype() } else { dtype };
        let expression = format!("{}->{output}", terms.join(","));
        self.add(Operator::Einsum(Einsum { expression, accumulator }), &inputs);
    }
}
