//! The states that a session keeps between inferences.

use crate::binding::{self, Slots};
use crate::error::Role;
use crate::port::{Port, Ports};
use crate::{Error, Tensor, View, ViewMut};

/// How to fill state inputs that the caller omits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatePolicy {
    /// Reject the inference: the caller must give them.
    Refused,
    /// Fill them with their initial values.
    Initial,
    /// Fill them with the outputs of the previous inference.
    Kept,
}

/// One tensor for each state of a model, in the order of [`Ports::states`].
pub(crate) struct States(Vec<Option<Tensor>>);

/// The maximum size of one state or output: 4 GiB.
const LIMIT: u64 = 1 << 32;
/// Fewer bytes than this are allocated without asking whether they are there.
const FREE: u64 = 1 << 20;

impl States {
    pub(crate) fn new(count: usize) -> States {
        States(vec![None; count])
    }

    /// Resets all states to their initial values.
    pub(crate) fn reset(&mut self) {
        self.0.fill(None);
    }

    /// Prepares state `index` with this shape. A state that is not kept gets its initial value; a
    /// kept state of another shape is an error.
    pub(crate) fn prepare(
        &mut self,
        index: usize,
        port: &Port,
        shape: &[usize],
        state_policy: StatePolicy,
    ) -> Result<(), Error> {
        let state = &mut self.0[index];
        match state {
            Some(kept) if state_policy == StatePolicy::Kept => {
                if kept.shape() != shape {
                    return Err(Error::State {
                        name: port.name.clone(),
                        kept: kept.shape().into(),
                        needed: shape.into(),
                    });
                }
            }
            _ => *state = Some(initial(port, shape)?),
        }
        Ok(())
    }

    /// Returns the tensor of a prepared state.
    pub(crate) fn tensor(&self, index: usize) -> Option<&Tensor> {
        self.0[index].as_ref()
    }

    /// Keeps the outputs that feed states, in place if type and size match.
    pub(crate) fn keep_views(&mut self, ports: &Ports, outputs: &Slots<ViewMut<'_>>) {
        for (kept, state) in self.0.iter_mut().zip(&ports.states) {
            let Some(output) = &outputs[state.output] else { continue };
            let view: View<'_> = output.as_view();
            let copied =
                kept.as_mut().and_then(ViewMut::of).is_some_and(|mut kept| kept.copy_from(view));
            if !copied {
                *kept = view.to_tensor(&[view.len()]);
            }
        }
    }

    /// Keeps the outputs that feed states.
    #[cfg(feature = "float")]
    pub(crate) fn keep_tensors(&mut self, ports: &Ports, outputs: &[Tensor]) {
        for (kept, state) in self.0.iter_mut().zip(&ports.states) {
            *kept = outputs.get(state.output).cloned();
        }
    }
}

/// Returns the initial value of a state: the default value of its input, or zeros.
fn initial(port: &Port, shape: &[usize]) -> Result<Tensor, Error> {
    let Some(default) = &port.default else { return zeros(port, shape) };
    // An integer model has the shape of its elements.
    default.clone().reshape(shape).map_err(|_| Error::State {
        name: port.name.clone(),
        kept: default.shape().into(),
        needed: shape.into(),
    })
}

/// Allocates zeros for an input or output, up to [`LIMIT`] bytes.
pub(crate) fn zeros(port: &Port, shape: &[usize]) -> Result<Tensor, Error> {
    let too_large = || Error::TooLarge {
        name: port.name.clone(),
        shape: shape.iter().map(|size| *size as u64).collect(),
    };
    let size = port.dtype.size().ok_or_else(too_large)? as u64;
    let bytes = shape.iter().try_fold(size, |all, dim| all.checked_mul(*dim as u64));
    let bytes = bytes.filter(|&bytes| bytes <= LIMIT && bytes <= isize::MAX as u64);
    // An allocation that fails ends the process: ask first.
    let fits = |bytes: u64| Vec::<u8>::new().try_reserve_exact(bytes as usize).is_ok();
    let fits = bytes.is_some_and(|bytes| bytes < FREE || fits(bytes));
    fits.then(|| Tensor::zeros(port.dtype, shape)).flatten().ok_or_else(too_large)
}

/// Returns the index of the state that fills an input which the caller omitted.
pub(crate) fn fillable(
    ports: &Ports,
    input: usize,
    port: &Port,
    state_policy: StatePolicy,
) -> Result<usize, Error> {
    match (ports.state_of_input(input), state_policy) {
        (None, _) => Err(binding::missing(Role::Input, port, "")),
        (Some(_), StatePolicy::Refused) => {
            let hint = "; it is a state: pass it, or set `SessionOptions::keep_state`";
            Err(binding::missing(Role::Input, port, hint))
        }
        (Some(state), _) => Ok(state),
    }
}
