//! Why a node stays in float or has int16 activations: one variant for each reason, with its text
//! in the report.

use std::fmt;

use hardtack_bundle::DType;
use hardtack_engine::BuildError;

/// The reason why a node stays in float.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum FloatReason {
    /// The user keeps it in float.
    #[error("kept in float by --keep-float")]
    KeepFloat,
    /// The search for a mix of number formats within an error budget chose float.
    #[error("{0}")]
    ErrorBudget(FormatChoice),
    /// A value that it reads or computes has a type without an INT8 form.
    #[error("data type {0} has no INT8 form")]
    DataType(DType),
    /// There is no scale for a value.
    #[error("the model has no scale for {0:?}, and no calibration data was given to choose one")]
    NoScale(String),
    /// The float runtime cannot evaluate it.
    #[error("{0}")]
    Evaluation(String),
    /// The engine cannot build its step.
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("the operator has no INT8 form")]
    UnsupportedOperator,
    #[error("no layer with weights is in its partition")]
    NoLayer,
    #[error("only float operations read it")]
    NoReader,
    #[error("a float operation computes its input")]
    FloatInput,
    #[error("it has several outputs")]
    SeveralOutputs,
    #[error("it has no batch dimension")]
    NoBatch,
    #[error("it changes the batch dimension, over which a program is repeated")]
    BatchChanged,
    #[error("it pads the batch dimension, over which a program is repeated")]
    BatchPadded,
    #[error("it concatenates along the batch")]
    BatchConcatenated,
    #[error("it slices the batch")]
    BatchSliced,
    #[error("a dimension is dynamic: bind it with --set")]
    DynamicDimension,
    #[error("it has no elements")]
    NoElements,
    #[error("it is too large")]
    TooLarge,
    #[error("its input is too large")]
    InputTooLarge,
    #[error("its output is too large")]
    OutputTooLarge,
    #[error("the image is too large")]
    ImageTooLarge,
    #[error("its layout needs more than 6 strided dimensions")]
    Scattered,
    #[error("it reads only constants")]
    OnlyConstants,
    #[error("it reads a constant where INT8 needs a computed value")]
    ConstantRead,
    #[error("it reads integers that a float operation computes")]
    FloatIntegersRead,
    #[error("it computes with integers")]
    IntegerArithmetic,
    #[error("it only rearranges an input")]
    OnlyRearranged,
    #[error("it is not a unary element-wise op")]
    NotElementWise,
    #[error("it does not have two inputs")]
    NotTwoInputs,
    #[error("both operands are broadcast")]
    BothBroadcast,
    #[error("its computed operand is broadcast")]
    ComputedBroadcast,
    #[error("its broadcast operand is not strided")]
    BroadcastNotStrided,
    #[error("its operands have no axes")]
    NoAxes,
    #[error("it has no INT8 form for two computed operands")]
    TwoComputedOperands,
    #[error("it has no INT8 form with a non-scalar constant")]
    NonScalarConstant,
    #[error("its constant is not float")]
    ConstantNotFloat,
    #[error("its constant is not a scalar")]
    ConstantNotScalar,
    #[error("its constant varies along the batch")]
    ConstantAlongBatch,
    #[error("its constant varies by position")]
    ConstantByPosition,
    #[error("its result is not float")]
    ResultNotFloat,
    #[error("the logarithm of a softmax needs more than 8 bits")]
    SoftmaxLogarithm,
    #[error("it has more than one axis")]
    SoftmaxAxes,
    #[error("its axis is the batch")]
    SoftmaxOverBatch,
    #[error("8 bits make scores of different places equal; --strict-int8 keeps it in int8")]
    DenseScores,
    #[error("softmax has no int16 form, and the error budget needs more than int8 before it")]
    SoftmaxOfInt16,
    #[error("it has no int16 parts")]
    NoInt16Parts,
    #[error("its int16 range was not calibrated")]
    NoInt16Range,
    #[error("it joins int16 values without a calibrated range")]
    NoJoinedInt16Range,
    #[error("its input has no channels")]
    NoChannels,
    #[error("its output size is not constant")]
    ResizeSize,
    #[error("it resizes other axes than height and width")]
    ResizeAxes,
    #[error("cubic interpolation has no INT8 form")]
    ResizeCubic,
    #[error("its range is not constant")]
    SliceRange,
    #[error("its ranges are not constant")]
    SliceRanges,
    #[error("it removes axes while it slices")]
    SliceRemovesAxes,
    #[error("it slices an axis that does not exist")]
    SliceAxis,
    #[error("its step is not positive")]
    SliceStep,
    #[error("its shape does not match its attributes")]
    ShapeMismatch,
    #[error("its scales vary along an axis")]
    ScalesPerAxis,
    #[error("its scale differs from the one its input was quantized with")]
    OtherScale,
    #[error("a sum pool that does not average has no INT8 form")]
    SumPool,
    #[error("its windows reach beyond the padding")]
    PoolBeyondPadding,
    #[error("its padding mode is not constant")]
    PadMode,
    #[error("its padding value is not a constant")]
    PadNotConstant,
    #[error("its padding value is not supported")]
    PadValue,
    #[error("it has no weights")]
    NoWeights,
    #[error("it has no bias")]
    NoBias,
    #[error("its weights are not constant")]
    WeightsNotConstant,
    #[error("its bias is not constant")]
    BiasNotConstant,
    #[error("it is not a matmul with one constant matrix")]
    NotMatmul,
    #[error("its input is neither 1-D nor 2-D with channels and a batch")]
    ImageRank,
    #[error("its windows have more than two dimensions")]
    WindowRank,
    #[error("its window is too large")]
    WindowTooLarge,
}

impl FloatReason {
    /// Returns whether the node stays in float only because other nodes do.
    pub(super) fn follows_others(&self) -> bool {
        matches!(self, FloatReason::NoLayer | FloatReason::NoReader | FloatReason::FloatInput)
    }
}

/// The reason why a node has int16 activations.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Int16Reason {
    #[error("requested by --int16")]
    Requested,
    /// The search for a mix of number formats tries int16.
    #[error("tried in the search for an error budget")]
    Tried,
    /// The search for a mix of number formats within an error budget chose int16.
    #[error("{0}")]
    ErrorBudget(FormatChoice),
    /// The same, and it chose int16 for the weights, too.
    #[error("{0}; its weights are int16, too")]
    WithWeights(FormatChoice),
}

/// The measurements behind the number format of a layer. Errors are relative to the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormatChoice {
    /// The error with only this layer in int8.
    pub int8_error: f64,
    /// The error with only this layer in int16, if it was measured.
    pub int16_error: Option<f64>,
    /// The error of the chosen mix.
    pub mix: f64,
    /// The error with all layers in int8.
    pub int8: f64,
}

impl fmt::Display for FormatChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |error: f64| format!("{:.2} %", 100.0 * error);
        write!(
            f,
            "int8 in this layer alone causes an output error of {}{}; the chosen mix has an error of \
             {} instead of {}",
            percent(self.int8_error),
            self.int16_error.map_or(String::new(), |error| format!(" (int16: {})", percent(error))),
            percent(self.mix),
            percent(self.int8),
        )
    }
}
