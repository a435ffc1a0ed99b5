//! The outputs of an inference.

use std::ops::Deref;

use crate::Tensor;

/// The outputs of one inference: pairs of name and tensor, in the order of the model.
///
/// # Examples
///
/// ```
/// use hardtack::{Bundle, Session, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let mut session = Session::new(&Bundle::open("kws_dscnn.tack")?)?;
/// let features = Tensor::new(&[1, 49, 10, 1], vec![0.5f32; 490]).unwrap();
/// let mut outputs = session.run(&[("mfcc", &features)])?;
///
/// let (name, first) = &outputs[0];
/// assert_eq!((name.as_str(), first.shape()), ("probs", &[1, 12][..]));
/// let probabilities = outputs.take("probs").unwrap();
/// assert!((probabilities.to_f32().iter().sum::<f32>() - 1.0).abs() < 0.05);
/// assert!(outputs.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs(pub(crate) Vec<(String, Tensor)>);

impl Outputs {
    /// Returns the output with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor)
    }

    /// Removes and returns the output with this name, without a copy.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Deref for Outputs {
    type Target = [(String, Tensor)];

    fn deref(&self) -> &[(String, Tensor)] {
        &self.0
    }
}

impl IntoIterator for Outputs {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<(String, Tensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Outputs {
    type Item = &'a (String, Tensor);
    type IntoIter = std::slice::Iter<'a, (String, Tensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
