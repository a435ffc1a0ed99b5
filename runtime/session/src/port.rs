//! The inputs and outputs of a model.

use std::fmt;

use hardtack_bundle::DType;
use hardtack_bundle::manifest::{self, Layout, Manifest, Quantization};

use crate::Tensor;

/// One dimension of an input or output.
///
/// # Examples
///
/// Choose 1 for every dimension that a model leaves open:
///
/// ```
/// use hardtack::{Bundle, Extent, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
/// let size = |extent: &Extent| match extent {
///     Extent::Fixed(size) => *size,
///     Extent::Named(_) => 1,
/// };
/// let shape: Vec<usize> = session.inputs()[0].shape.iter().map(size).collect();
/// assert_eq!(shape, [1, 49, 10, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// A constant size.
    Fixed(usize),
    /// A size that the caller chooses. Dimensions of the same name have the same size.
    Named(String),
}

/// An input or output of a model. Displayed as `name: f32[batch, 3, 224, 224]`.
///
/// # Examples
///
/// Quantize a value for an integer input:
///
/// ```
/// use hardtack::{Bundle, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let session = Session::new(&Bundle::open("kws_dscnn_i8.tack")?)?;
/// let port = &session.inputs()[0];
/// println!("{port}");
/// let quantization = port.quantization.unwrap();
/// let steps = (12.5 / quantization.scale).round() as i32;
/// let integer = (steps + quantization.zero_point).clamp(-128, 127) as i8;
/// assert_ne!(integer, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The name in the source model.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<Extent>,
    /// The meaning of the dimensions.
    pub layout: Layout,
    /// The scale and zero point if the elements are quantized.
    pub quantization: Option<Quantization>,
    /// The value of an input that an inference leaves out; `None` if it must be given.
    pub default: Option<Tensor>,
}

/// An output that feeds an input of the next inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The index of the input. Before the first inference, it has its default value, or zeros if it
    /// has none.
    pub input: usize,
    /// The index of the output.
    pub output: usize,
}

/// The signature of a model: its inputs, outputs and states.
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Ports};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn.tack")?;
/// let ports = Ports::of(&bundle.manifest()?);
/// assert_eq!((ports.inputs.len(), ports.outputs.len()), (1, 1));
/// assert!(ports.states.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ports {
    /// The inputs, in the order of the model.
    pub inputs: Vec<Port>,
    /// The outputs, in the order of the model.
    pub outputs: Vec<Port>,
    /// The outputs that feed inputs of the next inference.
    pub states: Vec<State>,
}

impl Ports {
    /// Reads the inputs, outputs and states from a manifest.
    pub fn of(manifest: &Manifest<'_>) -> Ports {
        let state = |state: &manifest::State| State {
            input: usize::from(state.input),
            output: usize::from(state.output),
        };
        Ports {
            inputs: manifest.inputs.iter().map(Port::of).collect(),
            outputs: manifest.outputs.iter().map(Port::of).collect(),
            states: manifest.states.iter().map(state).collect(),
        }
    }

    /// Returns the index of the input that pre-processing and single arrays are for: the first that
    /// is no state and has no default value, or the first if there is no such input.
    pub fn data_input(&self) -> usize {
        let must_be_given = |index: &usize| {
            self.state_of_input(*index).is_none() && self.inputs[*index].default.is_none()
        };
        (0..self.inputs.len()).find(must_be_given).unwrap_or(0)
    }

    /// Returns the index of the state that feeds an input.
    pub(crate) fn state_of_input(&self, input: usize) -> Option<usize> {
        self.states.iter().position(|state| state.input == input)
    }
}

impl Port {
    /// Converts an input or output of a manifest.
    pub fn of(port: &manifest::Port<'_>) -> Port {
        let extent = |extent: &manifest::Extent<'_>| match extent {
            manifest::Extent::Fixed(size) => {
                Extent::Fixed(usize::try_from(*size).unwrap_or(usize::MAX))
            }
            manifest::Extent::Named(name) => Extent::Named((*name).into()),
        };
        Port {
            name: port.name.into(),
            dtype: port.dtype,
            shape: port.shape.iter().map(extent).collect(),
            layout: port.layout,
            quantization: port.quantization,
            default: None,
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Fixed(size) => size.fmt(f),
            Extent::Named(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.name, self.dtype, Dims(&self.shape))?;
        match self.quantization {
            Some(Quantization { scale, zero_point: 0 }) => write!(f, " = {scale} · x"),
            Some(Quantization { scale, zero_point }) => {
                let sign = if zero_point < 0 { '+' } else { '−' };
                write!(f, " = {scale} · (x {sign} {})", zero_point.unsigned_abs())
            }
            None => Ok(()),
        }
    }
}

/// Displays dimensions as `[batch, 3]`.
pub(crate) struct Dims<'a, T>(pub(crate) &'a [T]);

impl<T: fmt::Display> fmt::Display for Dims<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            dim.fmt(f)?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_outputs_display_as_users_write_them() {
        let port = Port {
            name: "image".into(),
            dtype: DType::F32,
            shape: vec![Extent::Named("batch".into()), Extent::Fixed(3)],
            layout: Layout::Plain,
            quantization: None,
            default: None,
        };
        assert_eq!(port.to_string(), "image: f32[batch, 3]");
        let quantization = Some(Quantization { scale: 0.5, zero_point: -128 });
        let port = Port { dtype: DType::I8, quantization, ..port };
        assert_eq!(port.to_string(), "image: i8[batch, 3] = 0.5 · (x + 128)");
    }
}
