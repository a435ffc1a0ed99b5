//! Attributes of element-wise operators.

use serde::{Deserialize, Serialize};

/// An element-wise binary function.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Minimum,
    Maximum,
    Power,
    ShiftLeft,
    ShiftRight,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The right operand minus the left.
    SubtractFrom,
}

/// An element-wise unary function.
#[allow(missing_docs, reason = "the ONNX names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Unary {
    Abs,
    Exp,
    Ln,
    PowConst(f32),
    Square,
    Sqrt,
    Reciprocal,
    ReciprocalSqrt,
    Ceil,
    Floor,
    Round,
    RoundHalfToEven,
    Cos,
    Sin,
    Tan,
    Acos,
    Asin,
    Atan,
    Cosh,
    Sinh,
    Tanh,
    Erf,
    Acosh,
    Asinh,
    Atanh,
    Negate,
    Sign,
    IsInf {
        positive: bool,
        negative: bool,
    },
    IsNan,
    Not,
    BitNot,
    Sigmoid,
    HardSwish,
    LeakyRelu(f32),
    Silu,
    /// Exact GELU, with the error function.
    Gelu,
    /// GELU, approximated with tanh.
    GeluApproximate,
}
