//! Borrowed input and output elements for [`Session::run_into`](crate::Session::run_into).

use hardtack_bundle::DType;

/// Borrowed elements of an input, row-major.
///
/// # Examples
///
/// ```
/// use hardtack::{DType, View};
///
/// let pixels = [0u8, 128, 255];
/// let view = View::from(&pixels[..]);
/// assert_eq!((view.dtype(), view.len()), (DType::U8, 3));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum View<'a> {
    /// Elements of type f32.
    F32(&'a [f32]),
    /// Elements of type i8.
    I8(&'a [i8]),
    /// Elements of type u8.
    U8(&'a [u8]),
}

/// Borrowed memory for the elements of an output, row-major.
///
/// # Examples
///
/// ```
/// use hardtack::{Tensor, ViewMut};
///
/// let mut tensor = Tensor::new(&[2], vec![0.0f32; 2]).unwrap();
/// if let Some(ViewMut::F32(elements)) = ViewMut::of(&mut tensor) {
///     elements.copy_from_slice(&[1.0, 2.0]);
/// }
/// assert_eq!(tensor.to_f32(), [1.0, 2.0]);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ViewMut<'a> {
    /// Elements of type f32.
    F32(&'a mut [f32]),
    /// Elements of type i8.
    I8(&'a mut [i8]),
    /// Elements of type u8.
    U8(&'a mut [u8]),
}

macro_rules! views {
    ($($variant:ident $type:ty),*) => {
        impl View<'_> {
            /// Returns the element type.
            pub fn dtype(&self) -> DType {
                match self { $(View::$variant(_) => DType::$variant,)* }
            }

            /// Returns the number of elements.
            pub fn len(&self) -> usize {
                match self { $(View::$variant(elements) => elements.len(),)* }
            }

            /// Returns whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl ViewMut<'_> {
            /// Returns the element type.
            pub fn dtype(&self) -> DType {
                match self { $(ViewMut::$variant(_) => DType::$variant,)* }
            }

            /// Returns the number of elements.
            pub fn len(&self) -> usize {
                match self { $(ViewMut::$variant(elements) => elements.len(),)* }
            }

            /// Returns whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Borrows the same elements for a shorter lifetime.
            pub fn reborrow(&mut self) -> ViewMut<'_> {
                match self { $(ViewMut::$variant(elements) => ViewMut::$variant(elements),)* }
            }

            /// Returns a read-only view of the elements.
            pub fn as_view(&self) -> View<'_> {
                match self { $(ViewMut::$variant(elements) => View::$variant(elements),)* }
            }
        }

        impl<'a> View<'a> {
            /// Returns the elements of sample `index`, where each sample has `length` elements.
            pub(crate) fn sample(self, index: usize, length: usize) -> View<'a> {
                let start = index * length;
                match self {
                    $(View::$variant(elements) => View::$variant(&elements[start..start + length]),)*
                }
            }

            /// Borrows the elements of a tensor. Returns `None` if a view does not support their
            /// type.
            pub fn of(tensor: &'a crate::Tensor) -> Option<View<'a>> {
                match tensor.data() {
                    $(crate::Data::$variant(elements) => Some(View::$variant(elements)),)*
                    _ => None,
                }
            }

            /// Copies the elements into a tensor of this shape. Returns `None` if their number
            /// differs.
            pub(crate) fn to_tensor(self, shape: &[usize]) -> Option<crate::Tensor> {
                match self {
                    $(View::$variant(elements) => crate::Tensor::new(shape, elements.to_vec()).ok(),)*
                }
            }

            pub(crate) fn for_engine(self) -> hardtack_engine::Input<'a> {
                match self { $(View::$variant(elements) => hardtack_engine::Input::$variant(elements),)* }
            }
        }

        impl<'a> ViewMut<'a> {
            /// Returns the elements of sample `index`, where each sample has `length` elements.
            pub(crate) fn into_sample(self, index: usize, length: usize) -> ViewMut<'a> {
                let start = index * length;
                match self {
                    $(ViewMut::$variant(elements) => {
                        ViewMut::$variant(&mut elements[start..start + length])
                    })*
                }
            }

            /// Borrows the elements of a tensor. Returns `None` if a view does not support their
            /// type.
            pub fn of(tensor: &'a mut crate::Tensor) -> Option<ViewMut<'a>> {
                match tensor.data_mut() {
                    $(crate::Data::$variant(elements) => Some(ViewMut::$variant(elements)),)*
                    _ => None,
                }
            }

            /// Copies the elements if type and number are the same. Returns whether they were
            /// copied.
            pub(crate) fn copy_from(&mut self, source: View<'_>) -> bool {
                match (self, source) {
                    $((ViewMut::$variant(target), View::$variant(source))
                        if target.len() == source.len() => target.copy_from_slice(source),)*
                    _ => return false,
                }
                true
            }

            pub(crate) fn for_engine(self) -> hardtack_engine::Output<'a> {
                match self { $(ViewMut::$variant(elements) => hardtack_engine::Output::$variant(elements),)* }
            }
        }

        $(
            impl<'a> From<&'a [$type]> for View<'a> {
                fn from(elements: &'a [$type]) -> View<'a> {
                    View::$variant(elements)
                }
            }

            impl<'a> From<&'a mut [$type]> for ViewMut<'a> {
                fn from(elements: &'a mut [$type]) -> ViewMut<'a> {
                    ViewMut::$variant(elements)
                }
            }

            impl<'a> From<&'a Vec<$type>> for View<'a> {
                fn from(elements: &'a Vec<$type>) -> View<'a> {
                    View::$variant(elements)
                }
            }

            impl<'a> From<&'a mut Vec<$type>> for ViewMut<'a> {
                fn from(elements: &'a mut Vec<$type>) -> ViewMut<'a> {
                    ViewMut::$variant(elements)
                }
            }
        )*
    };
}

views!(F32 f32, I8 i8, U8 u8);
