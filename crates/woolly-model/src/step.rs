//! What one forward pass computes, and the checks that make it safe to hand to a backend.

use woolly_tensor::{BLOCK_TOKENS, Batch, Sequence};

use crate::{Config, Error};

/// One forward pass: new tokens of any number of sequences, and the rows whose logits are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Token ids, one a row.
    pub ids: &'a [u32],
    /// Which rows belong to which sequence, and where each sequence's cache lies.
    pub batch: Batch<'a>,
    /// Rows whose logits are wanted, strictly ascending.
    pub outputs: &'a [u32],
}

impl Step<'_> {
    /// Checks the step against the model and the room of the buffers.
    pub(crate) fn check(&self, config: &Config, max_rows: usize, max_outputs: usize) -> Result<(), Error> {
        let rows = self.ids.len();
        Error::check_step((1..=max_rows).contains(&rows), "number of tokens of a step", rows, max_rows)?;
        self.check_ids(config.vocab_size)?;
        self.check_sequences(config.context_length)?;
        self.check_outputs(max_outputs)
    }

    fn check_ids(&self, vocab_size: usize) -> Result<(), Error> {
        let known = |id: u32| usize::try_from(id).is_ok_and(|id| id < vocab_size);
        match self.ids.iter().position(|&id| !known(id)) {
            None => Ok(()),
            Some(row) => Err(Error::TokenId { id: self.ids[row], row, vocab_size }),
        }
    }

    fn check_sequences(&self, context_length: usize) -> Result<(), Error> {
        let mut next = 0;
        for sequence in self.batch.sequences {
            let rows = &sequence.rows;
            Error::check_step(rows.start == next, "first row of a sequence", rows.start, next)?;
            Error::check_step(rows.end > rows.start, "end of the rows of a sequence without rows", rows.end, next)?;
            check_length(sequence, context_length)?;
            next = rows.end;
        }
        Error::check_step(next == self.ids.len(), "rows of all sequences", next, self.ids.len())
    }

    fn check_outputs(&self, max_outputs: usize) -> Result<(), Error> {
        let (count, rows) = (self.outputs.len(), self.ids.len());
        Error::check_step(count <= max_outputs, "number of output rows of a step", count, max_outputs)?;
        let mut next = 0;
        for &row in self.outputs {
            let row = usize::try_from(row).unwrap_or(usize::MAX);
            Error::check_step(row < rows, "output row, counted from 0", row, rows)?;
            Error::check_step(row >= next, "output row out of ascending order", row, next)?;
            next = row + 1;
        }
        Ok(())
    }
}

fn check_length(sequence: &Sequence<'_>, context_length: usize) -> Result<(), Error> {
    let length = sequence.start.saturating_add(sequence.rows.len());
    if length > context_length {
        return Err(Error::ContextOverflow { length, context_length });
    }
    let room = sequence.blocks.len().saturating_mul(BLOCK_TOKENS);
    Error::check_step(length <= room, "tokens of a sequence, more than its cache blocks hold", length, room)
}
