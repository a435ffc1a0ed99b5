//! The inputs and outputs of a model, as a session shows them.

use std::fmt;

use hardtack_bundle::DType;
use hardtack_bundle::manifest::{self, Layout, Manifest, Quantization};

/// One dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Always this.
    Fixed(usize),
    /// Given by the caller; equal names are equal sizes.
    Named(String),
}

/// An input or output of a model. Displayed as `name: f32[batch, 3, 224, 224]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name in the source model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<Extent>,
    /// What the dimensions mean.
    pub layout: Layout,
    /// Scale and zero point, where the elements are quantized.
    pub quantization: Option<Quantization>,
}

/// An output that is to be fed back into an input at the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Index of the input; zero before the first run.
    pub input: usize,
    /// Index of the output.
    pub output: usize,
}

/// All inputs and outputs of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ports {
    /// What the caller gives, in order.
    pub inputs: Vec<Port>,
    /// What the caller gets, in order.
    pub outputs: Vec<Port>,
    /// Outputs that feed inputs.
    pub states: Vec<State>,
}

impl Ports {
    /// As a manifest lists them.
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

    /// Index of the state that feeds an input.
    pub(crate) fn state_of_input(&self, input: usize) -> Option<usize> {
        self.states.iter().position(|state| state.input == input)
    }
}

impl Port {
    /// As a manifest has it.
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
    fn ports_display_as_users_write_them() {
        let port = Port {
            name: "image".into(),
            dtype: DType::F32,
            shape: vec![Extent::Named("batch".into()), Extent::Fixed(3)],
            layout: Layout::Plain,
            quantization: None,
        };
        assert_eq!(port.to_string(), "image: f32[batch, 3]");
        let quantization = Some(Quantization { scale: 0.5, zero_point: -128 });
        let port = Port { dtype: DType::I8, quantization, ..port };
        assert_eq!(port.to_string(), "image: i8[batch, 3] = 0.5 · (x + 128)");
    }
}
