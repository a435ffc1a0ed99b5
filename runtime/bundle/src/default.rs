//! The default values of inputs.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::manifest::{Extent, MAX_PORTS, MAX_RANK, Manifest};
use crate::{Error, SectionKind};

/// The default value of an input. An inference that leaves the input out uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDefault<'a> {
    /// The index of the input.
    pub input: u8,
    /// The dimensions, outermost first.
    pub shape: Vec<u64, MAX_RANK>,
    /// The elements in the type of the input, row-major, little-endian.
    #[serde(borrow)]
    pub elements: &'a [u8],
}

/// The default values of a model's inputs, by ascending index of the input.
pub type Defaults<'a> = Vec<InputDefault<'a>, MAX_PORTS>;

/// Checks that default values fit the inputs of a manifest.
///
/// # Errors
/// Returns [`Error::Invalid`] if one does not.
pub(crate) fn check(defaults: &Defaults<'_>, manifest: &Manifest<'_>) -> Result<(), Error> {
    let invalid = |problem| Err(Error::Invalid { section: SectionKind::Defaults, problem });
    if !defaults.is_sorted_by(|a, b| a.input < b.input) {
        return invalid("the default values are not in the order of the inputs");
    }
    for default in defaults {
        let Some(port) = manifest.inputs.get(usize::from(default.input)) else {
            return invalid("a default value is of an input that does not exist");
        };
        let fits = |(extent, size): (&Extent<'_>, &u64)| match extent {
            Extent::Fixed(fixed) => fixed == size,
            Extent::Named(_) => true,
        };
        let has_shape = port.shape.len() == default.shape.len()
            && port.shape.iter().zip(&default.shape).all(fits);
        let size = port.dtype.size().unwrap_or(0) as u64;
        let bytes = default.shape.iter().try_fold(size, |all, dim| all.checked_mul(*dim));
        if !has_shape || bytes != Some(default.elements.len() as u64) {
            return invalid("a default value does not have the shape of its input");
        }
    }
    Ok(())
}
