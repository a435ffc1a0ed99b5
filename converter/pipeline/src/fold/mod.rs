//! Computes what does not depend on the input, merges scales and offsets into the convolutions
//! before them, and drops what does nothing.

mod batch_norm;
mod constants;
mod identities;

use hardtack::Model;

use crate::edit::Editor;

/// Folding one thing may make another foldable; no model needs more rounds than this.
const ROUNDS: usize = 8;

/// Folds a model. Its outputs stay the same up to rounding.
pub fn fold(mut model: Model) -> Model {
    for _ in 0..ROUNDS {
        let mut editor = Editor::new(model);
        let changes = constants::fold(&mut editor)
            + identities::drop(&mut editor)
            + batch_norm::merge(&mut editor);
        model = editor.finish();
        if changes == 0 {
            break;
        }
    }
    model
}
