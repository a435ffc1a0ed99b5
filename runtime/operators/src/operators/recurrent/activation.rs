//! The activation functions of recurrent layers.

use super::cell::Cell;
use crate::call::Call;
use crate::error::Problem;

/// An activation function with its parameters.
#[derive(Clone, Copy, Default)]
pub(super) enum Activation {
    Relu,
    #[default]
    Tanh,
    Sigmoid,
    Affine {
        alpha: f64,
        beta: f64,
    },
    LeakyRelu {
        alpha: f64,
    },
    ThresholdedRelu {
        alpha: f64,
    },
    ScaledTanh {
        alpha: f64,
        beta: f64,
    },
    HardSigmoid {
        alpha: f64,
        beta: f64,
    },
    Elu {
        alpha: f64,
    },
    Softsign,
    Softplus,
}

impl Activation {
    /// Returns the value of the function.
    pub(super) fn apply(self, x: f64) -> f64 {
        match self {
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Tanh => x.tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Affine { alpha, beta } => alpha * x + beta,
            Self::LeakyRelu { alpha } if x < 0.0 => alpha * x,
            Self::LeakyRelu { .. } => x,
            Self::ThresholdedRelu { alpha } if x < alpha => 0.0,
            Self::ThresholdedRelu { .. } => x,
            Self::ScaledTanh { alpha, beta } => alpha * (beta * x).tanh(),
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::Elu { alpha } if x < 0.0 => alpha * x.exp_m1(),
            Self::Elu { .. } => x,
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        }
    }
}

/// Returns the activation functions of each direction. Each function takes its parameters from the
/// lists in turn; those that the lists lack have the defaults of the operators of the same name.
pub(super) fn activations(
    call: &Call<'_>,
    cell: Cell,
    directions: usize,
) -> Result<Vec<[Activation; 3]>, Problem> {
    let own = cell.activations();
    let names: Vec<&str> = match call.texts("activations")? {
        Some(names) if !names.is_empty() => names.iter().map(String::as_str).collect(),
        _ => own.repeat(directions),
    };
    // The default of the attribute for RNN has two functions, also for one direction.
    let wanted = own.len() * directions;
    if names.len() != wanted && !(own.len() == 1 && names.len() == 2) {
        return Err(Problem::AttributeValue {
            name: "activations",
            value: format!("{names:?}"),
            accepted: "a list with one name for each function of each direction",
        });
    }
    let mut alphas = call.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = call.floats("activation_beta")?.unwrap_or_default().iter();
    let mut found = vec![[Activation::default(); 3]; directions];
    for (index, name) in names.into_iter().take(wanted).enumerate() {
        let mut alpha = |default: f64| alphas.next().map_or(default, |alpha| f64::from(*alpha));
        let mut beta = |default: f64| betas.next().map_or(default, |beta| f64::from(*beta));
        found[index / own.len()][index % own.len()] = match name {
            "Relu" => Activation::Relu,
            "Tanh" => Activation::Tanh,
            "Sigmoid" => Activation::Sigmoid,
            "Affine" => Activation::Affine { alpha: alpha(1.0), beta: beta(0.0) },
            "LeakyRelu" => Activation::LeakyRelu { alpha: alpha(0.01) },
            "ThresholdedRelu" => Activation::ThresholdedRelu { alpha: alpha(1.0) },
            "ScaledTanh" => Activation::ScaledTanh { alpha: alpha(1.0), beta: beta(1.0) },
            "HardSigmoid" => Activation::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) },
            "Elu" => Activation::Elu { alpha: alpha(1.0) },
            "Softsign" => Activation::Softsign,
            "Softplus" => Activation::Softplus,
            other => {
                return Err(Problem::AttributeValue {
                    name: "activations",
                    value: other.into(),
                    accepted: "a list of names of activation functions of the specification",
                });
            }
        };
    }
    Ok(found)
}
