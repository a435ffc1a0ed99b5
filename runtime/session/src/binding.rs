//! Matches the inputs and outputs of a model with those that a caller gives, and with its graph.

use hardtack_bundle::DType;
use hardtack_bundle::graph::Graph;
use hardtack_bundle::manifest::MAX_PORTS;

use crate::error::Role;
use crate::port::{Extent, Port, Ports};
use crate::{Error, Tensor};

/// One optional value for each input, or each output, of a model.
pub(crate) type Slots<T> = [Option<T>; MAX_PORTS];

/// Assigns named values to the inputs or outputs of the same names. Allocates only for errors.
pub(crate) fn slots<'n, T>(
    role: Role,
    ports: &[Port],
    given: impl Iterator<Item = (&'n str, T)>,
) -> Result<Slots<T>, Error> {
    let mut slots = [const { None }; MAX_PORTS];
    for (name, value) in given {
        let Some(index) = ports.iter().position(|port| port.name == name) else {
            let known: Vec<String> = ports.iter().map(|port| format!("{:?}", port.name)).collect();
            return Err(Error::Unknown { role, name: name.into(), known: known.join(", ") });
        };
        if slots[index].replace(value).is_some() {
            return Err(Error::Twice { role, name: name.into() });
        }
    }
    Ok(slots)
}

/// Gives the inputs that were left out their default values. States begin with theirs later.
pub(crate) fn fill<'p, T>(
    ports: &'p Ports,
    given: &mut Slots<T>,
    of: impl Fn(&'p Tensor) -> Option<T>,
) {
    for (index, (slot, port)) in given.iter_mut().zip(&ports.inputs).enumerate() {
        if slot.is_none() && ports.state_of_input(index).is_none() {
            *slot = port.default.as_ref().and_then(&of);
        }
    }
}

/// The sizes of named dimensions, taken from the inputs of an inference.
pub(crate) struct Sizes<'p>(Vec<Size<'p>>);

struct Size<'p> {
    dimension: &'p str,
    input: &'p Port,
    size: usize,
}

impl<'p> Sizes<'p> {
    /// Checks the element types and shapes of the given inputs and collects their sizes.
    pub(crate) fn bind(ports: &'p [Port], inputs: &Slots<&Tensor>) -> Result<Sizes<'p>, Error> {
        let mut sizes = Sizes(Vec::new());
        for (port, tensor) in ports.iter().zip(inputs) {
            let Some(tensor) = tensor else { continue };
            if tensor.dtype() != port.dtype {
                return Err(Error::DType {
                    role: Role::Input,
                    name: port.name.clone(),
                    expected: port.dtype,
                    given: tensor.dtype(),
                });
            }
            sizes.bind_one(port, tensor.shape())?;
        }
        Ok(sizes)
    }

    fn bind_one(&mut self, port: &'p Port, shape: &[usize]) -> Result<(), Error> {
        let misfit = || Error::Shape {
            name: port.name.clone(),
            expected: port.shape.clone(),
            given: shape.into(),
        };
        if shape.len() != port.shape.len() {
            return Err(misfit());
        }
        for (extent, &size) in port.shape.iter().zip(shape) {
            let dimension = match extent {
                Extent::Fixed(fixed) if *fixed == size => continue,
                Extent::Fixed(_) => return Err(misfit()),
                Extent::Named(dimension) => dimension.as_str(),
            };
            match self.0.iter().find(|known| known.dimension == dimension) {
                Some(known) if known.size != size => {
                    return Err(Error::Conflict {
                        dimension: dimension.into(),
                        first_input: known.input.name.clone(),
                        first: known.size,
                        second_input: port.name.clone(),
                        second: size,
                    });
                }
                Some(_) => {}
                None => self.0.push(Size { dimension, input: port, size }),
            }
        }
        Ok(())
    }

    /// Returns the shape of an input or output, with 1 for named dimensions of unknown size.
    #[cfg(feature = "float")]
    pub(crate) fn shape(&self, port: &Port) -> Vec<usize> {
        let size = |extent: &Extent| match extent {
            Extent::Fixed(size) => *size,
            Extent::Named(name) => {
                self.0.iter().find(|known| known.dimension == name).map_or(1, |known| known.size)
            }
        };
        port.shape.iter().map(size).collect()
    }
}

/// Returns the error for an input or output that was not given.
pub(crate) fn missing(role: Role, port: &Port, hint: &'static str) -> Error {
    Error::Missing { role, port: port.to_string(), hint }
}

/// Returns the shape of an input of `length` elements. At most one of its dimensions may be named.
#[cfg(feature = "float")]
pub(crate) fn shape_of_length(port: &Port, length: usize) -> Result<Vec<usize>, Error> {
    let unknown = || Error::UnknownShape { name: port.name.clone(), shape: port.shape.clone() };
    let named = port.shape.iter().filter(|extent| matches!(extent, Extent::Named(_))).count();
    let fixed = port.shape.iter().try_fold(1usize, |all, extent| match extent {
        Extent::Fixed(size) => all.checked_mul(*size),
        Extent::Named(_) => Some(all),
    });
    let fixed = fixed.filter(|fixed| *fixed > 0 || named == 0).ok_or_else(unknown)?;
    if named > 1 {
        return Err(unknown());
    }
    let fits = if named == 0 { length == fixed } else { length.is_multiple_of(fixed) };
    if !fits {
        let multiple = if named == 0 { "" } else { "a multiple of " };
        return Err(Error::Length {
            role: Role::Input,
            name: port.name.clone(),
            expected: format!("{multiple}{fixed}"),
            given: length,
        });
    }
    let size = |extent: &Extent| match extent {
        Extent::Fixed(size) => *size,
        Extent::Named(_) => length / fixed,
    };
    Ok(port.shape.iter().map(size).collect())
}

#[cfg(all(test, feature = "float"))]
mod tests {
    use super::*;
    use hardtack_bundle::DType;
    use hardtack_bundle::manifest::Layout;

    #[test]
    fn the_length_determines_one_unknown_size() {
        let port = |shape: &[Option<usize>]| Port {
            name: "x".into(),
            dtype: DType::F32,
            shape: shape
                .iter()
                .map(|size| size.map_or(Extent::Named("n".into()), Extent::Fixed))
                .collect(),
            layout: Layout::Plain,
            quantization: None,
            default: None,
        };
        let shape = |dims: &[Option<usize>], length| shape_of_length(&port(dims), length).ok();
        assert_eq!(shape(&[None, Some(4)], 12), Some(vec![3, 4]));
        assert_eq!(shape(&[None, Some(4)], 13), None);
        assert_eq!(shape(&[Some(2), Some(4)], 8), Some(vec![2, 4]));
        assert_eq!(shape(&[Some(2), Some(4)], 16), None);
        assert_eq!(shape(&[None, None], 16), None);
        assert_eq!(shape(&[None, Some(0)], 0), None);
        assert_eq!(shape(&[Some(0)], 0), Some(vec![0]));
        assert_eq!(shape(&[], 1), Some(vec![]));
        assert_eq!(shape(&[None, Some(usize::MAX), Some(2)], 8), None);
    }
}

/// Checks that the inputs and outputs match those of a graph, that their names are unique and that
/// each state joins an input and an output of the same type.
pub(crate) fn check(ports: &Ports, graph: &Graph) -> Result<(), Error> {
    let misfit = |problem: String| Err(Error::Manifest { problem });
    let inputs: Vec<_> = graph
        .inputs
        .iter()
        .filter_map(|input| graph.nodes.get(*input as usize)?.outputs.first())
        .collect();
    let fact = |value_id: &hardtack_bundle::graph::ValueId| {
        graph.nodes.get(value_id.node as usize)?.outputs.get(value_id.output as usize)
    };
    let outputs: Vec<_> = graph.outputs.iter().filter_map(fact).collect();
    for (role, ports, facts) in
        [(Role::Input, &ports.inputs, inputs), (Role::Output, &ports.outputs, outputs)]
    {
        if ports.len() != facts.len() || ports.len() > MAX_PORTS {
            let (listed, held) = (ports.len(), facts.len());
            return misfit(format!("it lists {listed} {role}s, but the graph has {held}"));
        }
        for (index, (port, fact)) in ports.iter().zip(facts).enumerate() {
            let fits = |(extent, dim): (&Extent, &hardtack_bundle::graph::Dim)| match extent {
                Extent::Fixed(size) => dim.value().is_none_or(|value| value == *size as i64),
                Extent::Named(_) => dim.value().is_none(),
            };
            let same = port.dtype == fact.dtype
                && port.dtype != DType::Dim
                && port.shape.len() == fact.shape.len()
                && port.shape.iter().zip(&fact.shape).all(fits);
            if !same {
                return misfit(format!("{role} {port} has a different type or shape in the graph"));
            }
            if ports[..index].iter().any(|other| other.name == port.name) {
                return misfit(format!("two {role}s are named {:?}", port.name));
            }
        }
    }
    for state in &ports.states {
        let pair = (ports.inputs.get(state.input), ports.outputs.get(state.output));
        if !matches!(pair, (Some(input), Some(output)) if input.dtype == output.dtype) {
            return misfit("a state must join an input and an output of the same type".into());
        }
    }
    Ok(())
}
