//! The outputs of an inference.

use std::ops::Deref;

use crate::Tensor;

/// The outputs of one inference: pairs of name and tensor, in the order of the model.
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
