//! From something raw to classes, by the bundle's own pre- and post-processing.

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

/// A class that a model found.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HardtackClass {
    /// Its number.
    pub index: usize,
    /// Its name, for as long as the session is there; NULL where the bundle has none.
    pub label: *const c_char,
    /// Its score, a probability where the model or the bundle makes it one.
    pub score: f32,
}

/// What a bundle says of making its input, and of its output.
pub(crate) struct Classifier {
    input: String,
    preprocessor: Preprocessor,
    postprocessor: Postprocessor<'static>,
}

impl Classifier {
    fn of(bundle: &Bundle) -> Result<Classifier, Failure> {
        let manifest = bundle.manifest()?;
        let (Some(input), Some(output)) = (manifest.inputs.first(), manifest.outputs.first())
        else {
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

/// Numbers and scores of the best classes.
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

/// From something raw to classes, by the bundle's own pre- and post-processing: pixels
/// `[height, width, channels]` of u8, a recording `[samples]`, or an array, as the bundle is made
/// for.
///
/// @param sample  what to classify; its name does not matter
/// @param classes gets the classes with the greatest scores, best first
/// @param count   how many at most; gets how many there are
///
/// # Safety
/// `session` is NULL or a session that nobody else uses; `sample` is NULL or a tensor whose pointers
/// are good; `classes` is NULL or has room for `count`; `count` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hardtack_session_classify(
    session: *mut HardtackSession,
    sample: *const HardtackTensor,
    classes: *mut HardtackClass,
    count: *mut usize,
) -> HardtackStatus {
    guarded(|| {
        // SAFETY: `session` is NULL or a session that nobody else uses.
        let session = unsafe { borrow_mut(session, "session")? };
        // SAFETY: `sample` is NULL or a tensor.
        let sample = unsafe { read(sample, "sample")? };
        // SAFETY: `count` is NULL or a number that can be read and written.
        let (most, mut found) = unsafe { (read(count, "count")?, Target::new(count, 1, "count")?) };
        // SAFETY: `classes` is NULL or has room for that many.
        let mut to = unsafe { Target::new(classes, most, "classes")? };
        // SAFETY: the pointers of the tensor are good.
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
