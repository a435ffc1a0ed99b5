//! Post-processing: returns the classes with the highest scores.

use hardtack_bundle::manifest::{Port, Quantization};
use hardtack_bundle::process::Postprocess;

use super::Error;
use super::input::{is_float, to_i64};
use crate::Tensor;

/// Turns a model's first output into classes.
///
/// # Examples
///
/// ```
/// use hardtack::process::Postprocessor;
/// use hardtack::{Bundle, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen/programs");
/// # std::env::set_current_dir(folder)?;
/// let bundle = Bundle::open("kws_dscnn_i8.tack")?;
/// let manifest = bundle.manifest()?;
/// let settings = bundle.postprocess()?.ok_or("the bundle describes no post-processing")?;
/// let labels = bundle.labels()?.ok_or("the bundle has no labels")?;
/// let classes = Postprocessor::new(settings, &manifest.outputs[0], labels.iter());
///
/// let mut scores = vec![-128i8; 12];
/// scores[9] = 100;
/// let top = classes.top(&Tensor::new(&[1, 12], scores).unwrap(), 1)?;
/// assert_eq!(top[0].label, Some("Yes"));
/// println!("{:.0} %", 100.0 * top[0].score); // 89 %
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Postprocessor<'a> {
    process: Postprocess,
    quantization: Option<Quantization>,
    labels: Vec<&'a str>,
}

/// A class and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class<'a> {
    /// The index of the label: the index of the score, minus the number of skipped classes.
    pub index: usize,
    /// The name of the class, if the bundle has one.
    pub label: Option<&'a str>,
    /// The score. It is a probability if the post-processing or the model applies softmax, and 1 if
    /// the model returns the class index itself.
    pub score: f32,
}

impl<'a> Postprocessor<'a> {
    /// Creates the post-processing of a bundle for its first output, with its labels in order.
    pub fn new(
        process: Postprocess,
        output: &Port<'_>,
        labels: impl IntoIterator<Item = &'a str>,
    ) -> Postprocessor<'a> {
        let labels = labels.into_iter().collect();
        Postprocessor { process, quantization: output.quantization, labels }
    }

    /// Returns the `count` classes with the highest scores, best first. Equal scores are ordered by
    /// index, and NaN comes last. `output` belongs to one sample: at most one dimension differs
    /// from 1. A single integer that is not quantized is the class index itself.
    ///
    /// # Errors
    /// Returns [`Error::Output`] if the shape is not that of one sample's scores, and
    /// [`Error::NotAClass`] if the class index is negative.
    pub fn top(&self, output: &Tensor, count: usize) -> Result<Vec<Class<'a>>, Error> {
        let Postprocess::Classify { softmax, skip } = self.process;
        let several = output.shape().iter().filter(|size| **size != 1).count() > 1;
        if several || output.is_empty() {
            return Err(Error::Output { shape: output.shape().into() });
        }
        if output.len() == 1 && !is_float(output.dtype()) && self.quantization.is_none() {
            return self.class(to_i64(output.data())[0], skip.into(), count);
        }
        let mut scores = dequantize(output, self.quantization);
        if softmax {
            probabilities(&mut scores);
        }
        let scores = scores.get(skip.into()..).unwrap_or_default();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| {
            // Adding 0 turns −0 into 0, so that they compare equal.
            let (a, b) = (scores[*a] + 0.0, scores[*b] + 0.0);
            a.is_nan().cmp(&b.is_nan()).then(b.total_cmp(&a))
        });
        order.truncate(count);
        Ok(order.into_iter().map(|index| self.named(index, scores[index])).collect())
    }

    fn class(&self, value: i64, skip: i64, count: usize) -> Result<Vec<Class<'a>>, Error> {
        let index = value.checked_sub(skip).and_then(|index| usize::try_from(index).ok());
        let index = index.ok_or(Error::NotAClass { value })?;
        Ok(vec![self.named(index, 1.0); count.min(1)])
    }

    fn named(&self, index: usize, score: f32) -> Class<'a> {
        Class { index, label: self.labels.get(index).copied(), score }
    }
}

/// Converts the elements of an output to f32, dequantizing integers if it is quantized.
///
/// # Examples
///
/// ```
/// use hardtack::Tensor;
/// use hardtack::process::dequantize;
/// use hardtack_bundle::manifest::Quantization;
///
/// let scores = Tensor::new(&[3], vec![-128i8, 0, 127]).unwrap();
/// let quantization = Quantization { scale: 1.0 / 256.0, zero_point: -128 };
/// assert_eq!(dequantize(&scores, Some(quantization)), [0.0, 0.5, 255.0 / 256.0]);
/// ```
pub fn dequantize(output: &Tensor, quantization: Option<Quantization>) -> Vec<f32> {
    let mut values = output.to_f32();
    if let Some(Quantization { scale, zero_point }) = quantization
        && !is_float(output.dtype())
    {
        values.iter_mut().for_each(|value| *value = scale * (*value - zero_point as f32));
    }
    values
}

/// Applies softmax in place.
fn probabilities(scores: &mut [f32]) {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - greatest).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

#[cfg(test)]
mod tests {
    use hardtack_bundle::DType;
    use hardtack_bundle::manifest::Layout;

    use super::*;

    fn top<'a>(process: (bool, u16), output: &Tensor, labels: &[&'a str]) -> Vec<Class<'a>> {
        let (softmax, skip) = process;
        let port = port(None);
        Postprocessor::new(Postprocess::Classify { softmax, skip }, &port, labels.iter().copied())
            .top(output, 2)
            .unwrap()
    }

    fn port(quantization: Option<Quantization>) -> Port<'static> {
        Port {
            name: "scores",
            dtype: DType::F32,
            shape: Default::default(),
            layout: Layout::Plain,
            quantization,
        }
    }

    #[test]
    fn highest_scores_first_and_ties_by_index() {
        let scores = vec![0.5f32, f32::NAN, 2.0, -0.0, 2.0];
        let output = Tensor::new(&[1, 5, 1, 1], scores).unwrap();
        let class = |index, label, score| Class { index, label, score };
        assert_eq!(
            top((false, 0), &output, &["a", "b", "c"]),
            [class(2, Some("c"), 2.0), class(4, None, 2.0)]
        );
        assert_eq!(
            top((false, 3), &output, &["d", "e"]),
            [class(1, Some("e"), 2.0), class(0, Some("d"), 0.0)]
        );
        assert!(top((false, 9), &output, &[]).is_empty());
    }

    #[test]
    fn softmax_includes_the_skipped_classes() {
        let output = Tensor::new(&[1, 3], vec![1001.0f32, 1000.0, 1000.0 + 2f32.ln()]).unwrap();
        let best = top((true, 1), &output, &[])[0];
        assert_eq!(best.index, 1);
        assert!((best.score - 2.0 / (std::f32::consts::E + 3.0)).abs() < 1e-4);
    }

    #[test]
    fn quantized_scores_are_dequantized() {
        let quantization = Quantization { scale: 1.0 / 256.0, zero_point: -128 };
        let process = Postprocess::Classify { softmax: false, skip: 0 };
        let post = Postprocessor::new(process, &port(Some(quantization)), []);
        let output = Tensor::new(&[1, 2], vec![-64i8, 64]).unwrap();
        assert_eq!(post.top(&output, 1).unwrap()[0], Class { index: 1, label: None, score: 0.75 });
    }

    #[test]
    fn a_single_integer_is_the_class_index() {
        let output = Tensor::new(&[1], vec![1i64]).unwrap();
        let setosa = Class { index: 1, label: Some("versicolor"), score: 1.0 };
        assert_eq!(top((false, 0), &output, &["setosa", "versicolor"]), [setosa]);
        let process = Postprocess::Classify { softmax: false, skip: 0 };
        let post = Postprocessor::new(process, &port(None), []);
        let negative = Tensor::scalar(-1i32);
        assert!(matches!(post.top(&negative, 1), Err(Error::NotAClass { value: -1 })));
        let pairs = Tensor::new(&[2, 2], vec![0.0f32; 4]).unwrap();
        assert!(matches!(post.top(&pairs, 1), Err(Error::Output { .. })));
        let none = Tensor::new(&[1, 0], Vec::<f32>::new()).unwrap();
        assert!(matches!(post.top(&none, 1), Err(Error::Output { .. })));
    }
}
