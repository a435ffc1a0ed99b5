//! Classification of raw samples, with the bundle's preprocessing and postprocessing.

use std::ffi::c_char;
use std::ptr;

use hardtack::process::{Postprocessor, Preprocessor};
use hardtack::{Bundle, Tensor};
use hardtack_bundle::process::Postprocess;

use crate::handle::borrow_mut;
use crate::pointer::{Target, read};
use crate::session::HardtackSession;
use crate::status::{Failure, HardtackStatus, guarded, mismatch};
use crate::tensor::HardtackTensor;

/// A class with its score.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackClass {
    /// The index of the class.
    pub index: usize,
    /// The label of the class, valid until the session is freed. NULL if the bundle has none.
    pub label: *const c_char,
    /// The score. It is a probability if the model or the bundle's postprocessing applies softmax.
    pub score: f32,
}

/// The preprocessing and postprocessing of a bundle.
pub(crate) struct Classifier {
    input: String,
    preprocessor: Preprocessor,
    postprocessor: Postprocessor<'static>,
}

impl Classifier {
    fn of(bundle: &Bundle) -> Result<Classifier, Failure> {
        let manifest = bundle.manifest()?;
        let input = manifest.inputs.get(bundle.ports()?.data_input());
        let (Some(input), Some(output)) = (input, manifest.outputs.first()) else {
            return Err(mismatch("the model has no input or no output"));
        };
        let preprocessor = match bundle.preprocess()? {
            Some(process) => Preprocessor::new(process, input)?,
            None => Preprocessor::identity(input),
        };
        let process = bundle.postprocess()?;
        let process = process.unwrap_or(Postprocess::Classify { softmax: false, skip: 0 });
        let postprocessor = Postprocessor::new(process, output, std::iter::empty());
        Ok(Classifier { input: input.name.into(), preprocessor, postprocessor })
    }
}

/// Returns the indices and scores of the best classes, at most `count`.
fn classify(
    session: &mut HardtackSession,
    sample: &Tensor,
    count: usize,
) -> Result<Vec<(usize, f32)>, Failure> {
    let HardtackSession { session, bundle, classifier, results, .. } = session;
    let Classifier { input, preprocessor, postprocessor } = match classifier {
        Some(classifier) => classifier,
        None => classifier.insert(Classifier::of(bundle)?),
    };
    let given = preprocessor.array(sample)?;
    let outputs = results.insert(session.run(&[(input, &given)])?);
    let top = postprocessor.top(&outputs[0].1, count)?;
    Ok(top.iter().map(|class| (class.index, class.score)).collect())
}

/// Classifies a raw sample with the bundle's preprocessing and postprocessing. Depending on the
/// bundle, the sample is an image `[height, width, channels]` of u8, audio `[samples]`, or an
/// array.
///
/// @param sample  the sample to classify; its name is ignored
/// @param classes receives the classes with the highest scores, best first
/// @param count   the maximum number of classes; receives the number of classes written
///
/// # Safety
/// `session` is NULL or a session that no other thread uses; `sample` is NULL or a tensor whose
/// pointers are valid; `classes` is NULL or valid for writes of `*count` elements; `count` is NULL
/// or valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_classify(
    session: *mut HardtackSession,
    sample: *const HardtackTensor,
    classes: *mut HardtackClass,
    count: *mut usize,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that no other thread uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `sample` is NULL or points to a tensor.
        let sample = unsafe { read(sample, "sample")? };
        // SAFETY: `count` is NULL or valid for reads and writes.
        let (most, mut found) = unsafe { (read(count, "count")?, Target::new(count, 1, "count")?) };
        // SAFETY: `classes` is NULL or valid for writes of `*count` elements.
        let mut to = unsafe { Target::new(classes, most, "classes")? };
        // SAFETY: `data` of the tensor is NULL or points to `bytes` bytes.
        let sample = unsafe { sample.tensor(None)? };
        let top = classify(session, &sample, most)?;
        found.write([top.len()]);
        to.write(top.into_iter().map(|(index, score)| {
            let label = session.labels.get(index).map_or(ptr::null(), |label| label.as_ptr());
            HardtackClass { index, label, score }
        }));
        Ok(())
    })
}
