//! The state of one forward pass, handed from block to block.

use woolly_tensor::Backend;

use crate::scratch::{Scratch, Stream};
use crate::{Error, Step};

/// One forward pass on its way through the layers.
pub(crate) struct Pass<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) step: Step<'a>,
    pub(crate) cache: &'a mut B::Cache,
    pub(crate) scratch: &'a mut Scratch<B>,
    narrowed: bool,
}

impl<'a, B: Backend> Pass<'a, B> {
    /// Starts a pass over a step that was checked.
    pub(crate) fn new(backend: &'a B, step: Step<'a>, cache: &'a mut B::Cache, scratch: &'a mut Scratch<B>) -> Self {
        Self { backend, step, cache, scratch, narrowed: false }
    }

    /// The residual stream that blocks add to: of all rows, or of the output rows once narrowed to them.
    pub(crate) fn stream(&mut self) -> &mut Stream<B> {
        if self.narrowed { &mut self.scratch.outputs } else { &mut self.scratch.rows }
    }

    /// Narrows the residual stream to the output rows; called between attention and merging of the last layer, after
    /// which no row influences another. Returns whether any rows are left to be computed.
    pub(crate) fn keep_outputs(&mut self) -> Result<bool, Error> {
        let Scratch { rows, outputs, logits, .. } = &mut *self.scratch;
        self.narrowed = true;
        if self.step.outputs.is_empty() {
            self.backend.resize(logits, 0)?;
            return Ok(false);
        }
        self.backend.gather(&rows.x, self.step.outputs, &mut outputs.x)?;
        self.backend.gather(&rows.attended, self.step.outputs, &mut outputs.attended)?;
        Ok(true)
    }
}
