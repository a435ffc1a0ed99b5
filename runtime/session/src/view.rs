//! Elements that the caller holds, lent for one run.

use hardtack_bundle::DType;

/// Elements of an input, row-major.
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

/// Where the elements of an output go, row-major.
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
            /// Element type.
            pub fn dtype(&self) -> DType {
                match self { $(View::$variant(_) => DType::$variant,)* }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(View::$variant(elements) => elements.len(),)* }
            }

            /// Whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl ViewMut<'_> {
            /// Element type.
            pub fn dtype(&self) -> DType {
                match self { $(ViewMut::$variant(_) => DType::$variant,)* }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(ViewMut::$variant(elements) => elements.len(),)* }
            }

            /// Whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The same elements, lent for a shorter time.
            pub fn reborrow(&mut self) -> ViewMut<'_> {
                match self { $(ViewMut::$variant(elements) => ViewMut::$variant(elements),)* }
            }

            /// The elements, to be read.
            pub fn as_view(&self) -> View<'_> {
                match self { $(ViewMut::$variant(elements) => View::$variant(elements),)* }
            }
        }

        impl<'a> View<'a> {
            /// The elements of sample number `index`, of `length` elements.
            pub(crate) fn sample(self, index: usize, length: usize) -> View<'a> {
                let start = index * length;
                match self {
                    $(View::$variant(elements) => View::$variant(&elements[start..start + length]),)*
                }
            }

            /// The elements of a tensor; `None` where they are of another type.
            pub fn of(tensor: &'a crate::Tensor) -> Option<View<'a>> {
                match tensor.data() {
                    $(crate::Data::$variant(elements) => Some(View::$variant(elements)),)*
                    _ => None,
                }
            }

            /// The elements in a tensor of a shape of as many.
            pub(crate) fn to_tensor(self, shape: &[usize]) -> Option<crate::Tensor> {
                match self {
                    $(View::$variant(elements) => crate::Tensor::new(shape, elements.to_vec()),)*
                }
            }

            pub(crate) fn for_engine(self) -> hardtack_engine::Input<'a> {
                match self { $(View::$variant(elements) => hardtack_engine::Input::$variant(elements),)* }
            }
        }

        impl<'a> ViewMut<'a> {
            /// The elements of sample number `index`, of `length` elements.
            pub(crate) fn into_sample(self, index: usize, length: usize) -> ViewMut<'a> {
                let start = index * length;
                match self {
                    $(ViewMut::$variant(elements) => {
                        ViewMut::$variant(&mut elements[start..start + length])
                    })*
                }
            }

            /// The elements of a tensor; `None` where they are of another type.
            pub fn of(tensor: &'a mut crate::Tensor) -> Option<ViewMut<'a>> {
                match tensor.data_mut() {
                    $(crate::Data::$variant(elements) => Some(ViewMut::$variant(elements)),)*
                    _ => None,
                }
            }

            /// Copies elements of the same type and number; tells whether they were.
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
