//! Compares a bundle with the float model it was converted from, on labeled data.

use std::fmt;
use std::path::Path;

use anyhow::bail;
use hardtack::{Bundle, Limits};
use serde::Serialize;

use crate::output::plain;
use crate::support::labeled::{self, Found, Sample, Truth};

/// The maximum number of changed samples in the text report.
const MOST_LISTED: usize = 10;

/// The results of the float model on labeled data.
pub struct Baseline {
    samples: Vec<Sample>,
    found: Found,
    labels: Vec<String>,
    data: String,
}

/// The difference between the results of a bundle and of the float model.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The name of the file or folder with the samples.
    pub data: String,
    /// The number of samples.
    pub samples: usize,
    /// The results of both models.
    #[serde(flatten)]
    pub answers: Answers,
}

/// The results of both models.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// Classes.
    Classes {
        /// The accuracy of the float model.
        float: Right,
        /// The accuracy of the bundle.
        bundle: Right,
        /// The samples whose predicted class differs.
        changed: Vec<Changed>,
    },
    /// Values.
    Values {
        /// The mean squared error of the float model.
        float: f64,
        /// The mean squared error of the bundle.
        bundle: f64,
    },
}

/// The accuracy of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Right {
    /// The number of correct predictions.
    pub right: usize,
    /// The fraction of correct predictions.
    pub top1: f64,
}

/// A sample for which the two models predict different classes.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// The name of the sample.
    pub sample: String,
    /// The kind of change.
    pub change: Change,
    /// The labeled class.
    pub truth: Class,
    /// The class that the float model predicts.
    pub float: Class,
    /// The class that the bundle predicts.
    pub bundle: Class,
}

/// How a prediction changed from the float model to the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// From wrong to correct.
    Gained,
    /// From correct to wrong.
    Lost,
    /// From wrong to another wrong class.
    Other,
}

impl Change {
    /// Returns the name of the kind, such as `gained`.
    pub const fn name(self) -> &'static str {
        match self {
            Change::Gained => "gained",
            Change::Lost => "lost",
            Change::Other => "other",
        }
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The index of the class.
    pub index: usize,
    /// The name of the class, if it has one.
    pub label: Option<String>,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => f.write_str(label),
            None => self.index.fmt(f),
        }
    }
}

impl Baseline {
    /// Runs the bundle of the float model on labeled data.
    ///
    /// # Errors
    /// If the data cannot be read or do not fit the model.
    pub fn of(bundle: &Bundle, path: &Path, data: &Path) -> anyhow::Result<Baseline> {
        let labels = labeled::labels(bundle)?;
        let samples = labeled::read(data, bundle)?;
        let found = labeled::measure(bundle, path, &samples, Limits::default())
            .map_err(|error| error.context(data.display().to_string()))?;
        let name = data.file_name().unwrap_or(data.as_os_str());
        Ok(Baseline { samples, found, labels, data: name.to_string_lossy().into() })
    }

    /// Runs a bundle on the same data and compares its results.
    ///
    /// # Errors
    /// If the bundle cannot be run.
    pub fn compare(&self, bundle: &Bundle, path: &Path) -> anyhow::Result<Comparison> {
        let found = labeled::measure(bundle, path, &self.samples, Limits::default())?;
        let answers = match (&self.found, &found) {
            (Found::Classes(float), Found::Classes(bundle)) => self.classes(float, bundle),
            (Found::Errors(float), Found::Errors(bundle)) => {
                Answers::Values { float: mean(float), bundle: mean(bundle) }
            }
            _ => bail!("{}: some samples have a class and others have values", self.data),
        };
        Ok(Comparison { data: self.data.clone(), samples: self.samples.len(), answers })
    }

    /// Compares the predicted classes with each other and with the labels.
    fn classes(&self, float: &[usize], bundle: &[usize]) -> Answers {
        let class = |index: usize| Class { index, label: self.labels.get(index).cloned() };
        let mut right = [0; 2];
        let mut changed = Vec::new();
        for ((sample, float), bundle) in self.samples.iter().zip(float).zip(bundle) {
            let Truth::Class(truth) = &sample.truth else { continue };
            right[0] += usize::from(float == truth);
            right[1] += usize::from(bundle == truth);
            let change = match (float == truth, bundle == truth) {
                _ if float == bundle => continue,
                (true, _) => Change::Lost,
                (_, true) => Change::Gained,
                _ => Change::Other,
            };
            changed.push(Changed {
                sample: sample.name.clone(),
                change,
                truth: class(*truth),
                float: class(*float),
                bundle: class(*bundle),
            });
        }
        let count = self.samples.len().max(1) as f64;
        let [float, bundle] = right.map(|right| Right { right, top1: right as f64 / count });
        Answers::Classes { float, bundle, changed }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Comparison {
    /// Returns the number of samples whose prediction changed in this way.
    pub fn count(&self, change: Change) -> usize {
        match &self.answers {
            Answers::Classes { changed, .. } => {
                changed.iter().filter(|changed| changed.change == change).count()
            }
            Answers::Values { .. } => 0,
        }
    }

    /// Returns the drop of top-1 accuracy from the float model to the bundle as a fraction;
    /// negative if the bundle is more accurate. `None` for values.
    pub fn drop(&self) -> Option<f64> {
        match &self.answers {
            Answers::Classes { float, bundle, .. } => Some(float.top1 - bundle.top1),
            Answers::Values { .. } => None,
        }
    }

    /// Formats the comparison as text.
    pub fn text(&self) -> String {
        let samples = self.samples;
        let (float, bundle, changed) = match &self.answers {
            Answers::Values { float, bundle } => {
                return format!(
                    "mean squared error: float {float:.6}, bundle {bundle:.6} ({samples} samples)\n"
                );
            }
            Answers::Classes { float, bundle, changed } => (float, bundle, changed),
        };
        let mut text = format!(
            "top-1 accuracy: float {:.4}, bundle {:.4} ({:+.2} points, {samples} samples)\n{} \
             predictions changed: {} gained, {} lost, {} other\n",
            float.top1,
            bundle.top1,
            0.0 - 100.0 * self.drop().unwrap_or(0.0),
            changed.len(),
            self.count(Change::Gained),
            self.count(Change::Lost),
            self.count(Change::Other),
        );
        for Changed { sample, change, truth, float, bundle } in changed.iter().take(MOST_LISTED) {
            let change = change.name();
            let line = format!("{sample}: label {truth}, float {float}, bundle {bundle}");
            text += &format!("  {change:6}  {}\n", plain(&line));
        }
        if changed.len() > MOST_LISTED {
            text += &format!("  … and {} more (--json lists all)\n", changed.len() - MOST_LISTED);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(truths: &[usize], float: &[usize]) -> Baseline {
        let sample = |class: &usize| Sample::of_class("one", *class);
        Baseline {
            samples: truths.iter().map(sample).collect(),
            found: Found::Classes(float.to_vec()),
            labels: vec!["cat".into(), "dog".into()],
            data: "data".into(),
        }
    }

    #[test]
    fn changed_predictions_are_counted_by_kind() {
        let float = [0, 1, 1, 0, 2];
        let baseline = baseline(&[0, 1, 0, 1, 1], &float);
        let answers = baseline.classes(&float, &[0, 0, 0, 2, 2]);
        let comparison = Comparison { data: "data".into(), samples: 5, answers };
        let counts = [Change::Gained, Change::Lost, Change::Other].map(|c| comparison.count(c));
        assert_eq!(counts, [1, 1, 1]);
        assert_eq!(comparison.drop(), Some(0.0));
        let Answers::Classes { float, bundle, changed } = &comparison.answers else { panic!() };
        assert_eq!((float.right, bundle.right), (2, 2));
        let last = &changed[2];
        assert_eq!(last.change, Change::Other);
        assert_eq!(
            [&last.truth, &last.float, &last.bundle].map(Class::to_string),
            ["dog", "cat", "2"]
        );
        let text = comparison.text();
        assert!(text.contains("3 predictions changed: 1 gained, 1 lost, 1 other"), "{text}");
    }

    #[test]
    fn a_drop_is_a_fraction_of_all_samples() {
        let float = [0, 1, 0, 1];
        let answers = baseline(&[0, 1, 0, 1], &float).classes(&float, &[0, 1, 0, 0]);
        let comparison = Comparison { data: String::new(), samples: 4, answers };
        assert_eq!(comparison.drop(), Some(0.25));
        let answers = Answers::Values { float: 0.5, bundle: 0.75 };
        let comparison = Comparison { answers, ..comparison };
        assert_eq!(comparison.drop(), None);
        assert!(comparison.text().contains("0.75"));
    }
}
