//! Converts element-wise operators.

use hardtack_bundle::DType;
#[cfg(feature = "export")]
use hardtack_bundle::graph::Operator;
use hardtack_bundle::graph::{Binary, Unary};
use tract_core::internal::*;
use tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_core::ops::cast::Cast;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::{logic, math, nn};

use crate::float::custom_ops::{CheckedDivision, Late};
use crate::float::error::{Problem, require};
use crate::float::load::{Context, Purpose};
#[cfg(feature = "export")]
use crate::float::save::Scope;
#[cfg(feature = "export")]
use crate::float::tensors::dtype_from_tract;
use crate::float::tensors::dtype_to_tract;

pub(super) fn binary(cx: &Context<'_>, kind: Binary) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(2)?;
    let (a, b) = (cx.input(0).datum_type, cx.input(1).datum_type);
    let integers = |a: DatumType, b: DatumType| a.is_tdim() && b.is_integer();
    require(a == b || integers(a, b) || integers(b, a), "its inputs differ in type")?;
    broadcast(cx)?;
    // tract treats the remainder as commutative.
    let checked = match kind {
        Binary::Divide => a.is_integer() || a.is_tdim(),
        Binary::Remainder => true,
        _ => false,
    };
    let op = if checked && cx.loader.purpose == Purpose::Run {
        Box::new(CheckedDivision { remainder: kind == Binary::Remainder })
    } else {
        binary_to_tract(kind)
    };
    let op = Box::new(TypedBinOp(op, None));
    // tract replaces `0 − x` by x.
    let fixed = kind == Binary::SubtractFrom && cx.inputs.iter().any(|fact| fact.konst.is_some());
    Ok(if fixed && cx.loader.purpose == Purpose::Run { Box::new(Late::new(op)) } else { op })
}

/// Checks that inputs have the same rank, and that sizes along each axis are equal or 1.
fn broadcast(cx: &Context<'_>) -> Result<(), Problem> {
    let rank = cx.input(0).rank();
    require(cx.inputs.iter().all(|input| input.rank() == rank), "its inputs differ in rank")?;
    for axis in 0..rank {
        let sizes = cx.inputs.iter().filter_map(|input| input.shape[axis].as_i64());
        let mut wide = sizes.filter(|size| *size != 1);
        let first = wide.next();
        require(wide.all(|size| Some(size) == first), "the shapes of its inputs do not broadcast")?;
    }
    // tract reads the value of a constant without checking that it has one. If all sizes are known,
    // the loader evaluates empty operations itself.
    let empty = |fact: &&TypedFact| fact.konst.as_ref().is_some_and(|value| value.len() == 0);
    let known = cx.inputs.iter().all(|input| input.shape.is_concrete());
    require(
        known || !cx.inputs.iter().any(empty),
        "a constant input has no elements, but the shape of another input is not known",
    )
}

pub(super) fn unary(cx: &Context<'_>, kind: Unary) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    Ok(Box::new(unary_to_tract(kind)))
}

pub(super) fn cast(cx: &Context<'_>, dtype: DType) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(1)?;
    Ok(Box::new(Cast { to: dtype_to_tract(dtype) }))
}

pub(super) fn select(cx: &Context<'_>) -> Result<Box<dyn TypedOp>, Problem> {
    cx.arity(3)?;
    cx.same_types(1)?;
    require(cx.input(0).datum_type == DatumType::Bool, "its condition is not of type bool")?;
    broadcast(cx)?;
    Ok(Box::new(logic::Iff))
}

#[cfg(feature = "export")]
pub(super) fn save(op: &dyn TypedOp, _: &mut Scope<'_>) -> Result<Option<Operator>, Problem> {
    Ok(if let Some(op) = op.downcast_ref::<TypedBinOp>() {
        binary_from_tract(op).map(Operator::Binary)
    } else if let Some(op) = op.downcast_ref::<ElementWiseOp>() {
        unary_from_tract(op).map(Operator::Unary)
    } else if let Some(op) = op.downcast_ref::<Cast>() {
        dtype_from_tract(op.to).map(Operator::Cast)
    } else if op.is::<logic::Iff>() {
        Some(Operator::Select)
    } else {
        None
    })
}

macro_rules! binary_kinds {
    ($($kind:ident => $op:path;)*) => {
        fn binary_to_tract(kind: Binary) -> Box<dyn BinMiniOp> {
            match kind { $(Binary::$kind => Box::new($op),)* }
        }

        #[cfg(feature = "export")]
        fn binary_from_tract(op: &TypedBinOp) -> Option<Binary> {
            // The operator cannot represent an explicit output type.
            if op.1.is_some() {
                return None;
            }
            $(if op.0.is::<$op>() { return Some(Binary::$kind); })*
            None
        }
    };
}

binary_kinds! {
    Add => math::Add;
    Subtract => math::Sub;
    SubtractFrom => math::SubF;
    Multiply => math::Mul;
    Divide => math::Div;
    Remainder => math::Rem;
    Minimum => math::Min;
    Maximum => math::Max;
    Power => math::Pow;
    ShiftLeft => math::ShiftLeft;
    ShiftRight => math::ShiftRight;
    And => logic::And;
    Or => logic::Or;
    Xor => logic::Xor;
    BitAnd => logic::BitAnd;
    BitOr => logic::BitOr;
    BitXor => logic::BitXor;
    Equal => logic::CompEq;
    NotEqual => logic::CompNE;
    Less => logic::CompLT;
    LessOrEqual => logic::CompLTE;
    Greater => logic::CompGT;
    GreaterOrEqual => logic::CompGTE;
}

macro_rules! unary_kinds {
    ($($kind:ident => $type:ty;)*) => {
        fn plain_to_tract(kind: Unary) -> Option<Box<dyn ElementWiseMiniOp>> {
            $(if let Unary::$kind = kind {
                type Op = $type;
                return Some(Box::new(Op {}));
            })*
            None
        }

        #[cfg(feature = "export")]
        fn plain_from_tract(op: &dyn ElementWiseMiniOp) -> Option<Unary> {
            $(if op.is::<$type>() { return Some(Unary::$kind); })*
            None
        }
    };
}

unary_kinds! {
    Abs => math::Abs;
    Exp => math::Exp;
    Ln => math::Ln;
    Square => math::Square;
    Sqrt => math::Sqrt;
    Reciprocal => math::Recip;
    ReciprocalSqrt => math::Rsqrt;
    Ceil => math::Ceil;
    Floor => math::Floor;
    Round => math::Round;
    RoundHalfToEven => math::RoundHalfToEven;
    Cos => math::Cos;
    Sin => math::Sin;
    Tan => math::Tan;
    Acos => math::Acos;
    Asin => math::Asin;
    Atan => math::Atan;
    Cosh => math::Cosh;
    Sinh => math::Sinh;
    Tanh => math::Tanh;
    Erf => math::Erf;
    Acosh => math::Acosh;
    Asinh => math::Asinh;
    Atanh => math::Atanh;
    Negate => math::Neg;
    Sign => math::Sign;
    IsNan => math::IsNan;
    Not => logic::Not;
    BitNot => logic::BitNot;
    Sigmoid => nn::Sigmoid;
    HardSwish => nn::HardSwish;
    Silu => nn::silu::Silu;
    Gelu => nn::gelu_exact::GeluExact;
}

fn unary_to_tract(kind: Unary) -> ElementWiseOp {
    let op: Box<dyn ElementWiseMiniOp> = match kind {
        Unary::PowConst(exponent) => Box::new(math::PowConst { exponent }),
        Unary::IsInf { positive, negative } => {
            Box::new(math::IsInf { detect_positive: positive, detect_negative: negative })
        }
        Unary::LeakyRelu(alpha) => Box::new(nn::LeakyRelu { alpha }),
        Unary::GeluApproximate => {
            Box::new(nn::gelu_approximate::GeluApproximate { fast_impl: false })
        }
        plain => plain_to_tract(plain).expect("every other kind is in `unary_kinds`"),
    };
    ElementWiseOp(op, None)
}

#[cfg(feature = "export")]
fn unary_from_tract(op: &ElementWiseOp) -> Option<Unary> {
    if op.1.is_some() {
        return None;
    }
    let mini = &*op.0;
    if let Some(pow) = mini.downcast_ref::<math::PowConst>() {
        Some(Unary::PowConst(pow.exponent))
    } else if let Some(inf) = mini.downcast_ref::<math::IsInf>() {
        Some(Unary::IsInf { positive: inf.detect_positive, negative: inf.detect_negative })
    } else if let Some(leaky) = mini.downcast_ref::<nn::LeakyRelu>() {
        Some(Unary::LeakyRelu(leaky.alpha))
    } else if mini.is::<nn::gelu_approximate::GeluApproximate>() {
        Some(Unary::GeluApproximate)
    } else {
        plain_from_tract(mini)
    }
}
