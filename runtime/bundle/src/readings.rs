//! How the two readings of the source model agreed.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::manifest::{Entry, MAX_ENTRIES};

/// How the two readings of the source model agreed: the converter runs the model through its
/// native operators and through the reference implementation of ONNX.
///
/// # Examples
///
/// ```
/// use hardtack_bundle::Bundle;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let file = std::fs::read("kws_dscnn.tack")?;
/// // A bundle of an earlier version of the converter does not say.
/// assert_eq!(Bundle::parse(&file)?.readings()?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readings<'a> {
    /// The number of output values that were compared; 0 if there was no second reading.
    pub values: u64,
    /// The number of samples that were compared.
    pub samples: u32,
    /// The source of the samples: `random` or a file name.
    pub source: &'a str,
    /// The largest difference of a value, as a fraction of its output's range.
    pub difference: f64,
    /// The nodes that the reference implementation evaluates, with the reason. `the model` stands
    /// for all nodes.
    #[serde(borrow)]
    pub evaluated: Vec<Entry<'a>, MAX_ENTRIES>,
}
