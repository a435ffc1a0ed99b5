//! Division that reports a divisor of 0 instead of ending the process.

use tract_core::internal::*;
use tract_core::ops::binary::BinMiniOp;
use tract_core::ops::math::{Div, Rem};

/// Computes quotients or remainders.
///
/// A divisor of 0 is an error for integers, as is dividing the smallest value of a signed type by
/// -1, because the quotient overflows.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(in crate::float) struct CheckedDivision {
    /// Whether to compute the remainder instead of the quotient.
    pub remainder: bool,
}

impl CheckedDivision {
    fn inner(&self) -> &'static dyn BinMiniOp {
        if self.remainder { &Rem } else { &Div }
    }

    fn check(&self, a: &Tensor, b: &Tensor) -> TractResult<()> {
        /// Returns whether there is a divisor of 0 and whether there is one of -1.
        fn divisors<T: Datum + PartialEq + Copy>(
            b: &Tensor,
            zero: T,
            minus_one: Option<T>,
        ) -> TractResult<(bool, bool)> {
            let plain = b.try_as_plain_ram()?;
            let values = plain.as_slice::<T>()?;
            let minus_one = minus_one.is_some_and(|minus_one| values.contains(&minus_one));
            Ok((values.contains(&zero), minus_one))
        }
        fn holds<T: Datum + PartialEq + Copy>(a: &Tensor, value: T) -> TractResult<bool> {
            Ok(a.try_as_plain_ram()?.as_slice::<T>()?.contains(&value))
        }
        let (zero, overflow) = match b.datum_type() {
            DatumType::U8 => divisors(b, 0u8, None)?,
            DatumType::U16 => divisors(b, 0u16, None)?,
            DatumType::U32 => divisors(b, 0u32, None)?,
            DatumType::U64 => divisors(b, 0u64, None)?,
            DatumType::I8 => divisors(b, 0i8, Some(-1))?,
            DatumType::I16 => divisors(b, 0i16, Some(-1))?,
            DatumType::I32 => divisors(b, 0i32, Some(-1))?,
            DatumType::I64 => divisors(b, 0i64, Some(-1))?,
            DatumType::TDim => {
                let plain = b.try_as_plain_ram()?;
                let positive = |dim: &TDim| dim.as_i64().is_none_or(|value| value > 0);
                let positive = plain.as_slice::<TDim>()?.iter().all(positive);
                ensure!(positive, "a dimension is divided by a value that is not positive");
                (false, false)
            }
            _ => (false, false),
        };
        ensure!(!zero, "a divisor is 0");
        if overflow {
            let least = match a.datum_type() {
                DatumType::I8 => holds(a, i8::MIN)?,
                DatumType::I16 => holds(a, i16::MIN)?,
                DatumType::I32 => holds(a, i32::MIN)?,
                DatumType::I64 => holds(a, i64::MIN)?,
                _ => false,
            };
            ensure!(!least, "dividing the smallest integer by -1 could overflow");
        }
        Ok(())
    }
}

impl BinMiniOp for CheckedDivision {
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    fn operating_datum_type(&self, a: DatumType, b: DatumType) -> TractResult<DatumType> {
        self.inner().operating_datum_type(a, b)
    }

    fn result_datum_type(&self, a: DatumType, b: DatumType) -> TractResult<DatumType> {
        self.inner().result_datum_type(a, b)
    }

    fn eval_in_a(&self, a: &mut Tensor, b: &Tensor) -> TractResult<()> {
        self.check(a, b)?;
        self.inner().eval_in_a(a, b)
    }

    fn eval_out_of_place(&self, c: &mut Tensor, a: &Tensor, b: &Tensor) -> TractResult<()> {
        self.check(a, b)?;
        self.inner().eval_out_of_place(c, a, b)
    }

    fn eval(&self, a: TValue, b: TValue, c_dt: DatumType) -> TractResult<Tensor> {
        self.check(&a, &b)?;
        self.inner().eval(a, b, c_dt)
    }

    /// tract wrongly reports remainders as commutative.
    fn is_commutative(&self) -> bool {
        false
    }

    fn neutral_element(&self) -> Option<i64> {
        self.inner().neutral_element()
    }

    fn absorbing_element(&self) -> Option<i64> {
        self.inner().absorbing_element()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(remainder: bool, a: &[i32], b: &[i32]) -> TractResult<Tensor> {
        let (a, b) = (tensor1(a).into_tvalue(), tensor1(b).into_tvalue());
        CheckedDivision { remainder }.eval(a, b, DatumType::I32)
    }

    #[test]
    fn quotients_are_the_same_as_in_tract() {
        assert_eq!(run(false, &[7, -7, 9], &[2, 2, -3]).unwrap(), tensor1(&[3, -3, -3]));
        assert_eq!(run(true, &[7, 9], &[2, 3]).unwrap(), tensor1(&[1, 0]));
    }

    #[test]
    fn divisions_that_would_trap_are_errors() {
        for remainder in [false, true] {
            assert!(run(remainder, &[1, 2], &[1, 0]).is_err());
            assert!(run(remainder, &[i32::MIN, 2], &[-1, 1]).is_err());
        }
    }
}
