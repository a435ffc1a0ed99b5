//! Attributes of operators that work element by element.

use serde::{Deserialize, Serialize};

/// Which function of two values.
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
    /// Right minus left.
    SubtractFrom,
}

/// Which function of one value.
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
    /// By the error function.
    Gelu,
    /// By tanh.
    GeluApproximate,
}
