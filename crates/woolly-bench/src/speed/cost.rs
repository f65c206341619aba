//! What a step must read and compute at least, whatever the engine: the numerators of GB/s and FLOP/s.

use woolly_gguf::{GGUFLoader, TensorInfo};
use woolly_model::Config;

use super::Case;

/// The least that a case moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes read: each weight once a step, and the keys and values attended to.
    pub bytes: f64,
    /// Floating-point operations, a multiplication and an addition counting as two.
    pub operations: f64,
}

/// Bytes and elements of a model's parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    layers: Part,
    /// Stacks of experts, all of them.
    experts: Part,
    /// Share of the experts that a token uses; 1 without experts.
    used: f64,
    head: Part,
    /// Bytes of keys and values of one token in all layers.
    cache_bytes: f64,
    /// Operations of one query token on one token of context in all layers.
    attention: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    bytes: f64,
    elements: f64,
}

impl Part {
    fn add(&mut self, tensor: &TensorInfo) {
        self.bytes += tensor.byte_len() as f64;
        self.elements += tensor.elements() as f64;
    }
}

impl Costs {
    /// Adds up the tensors of a file; `cache_bytes` are those of one token's keys and values in all layers.
    pub fn of(loader: &GGUFLoader, config: &Config, cache_bytes: f64) -> Self {
        let [mut layers, mut experts, mut head] = [Part::default(); 3];
        let tied = loader.tensor("output.weight").is_none();
        for tensor in loader.tensors() {
            match tensor.name() {
                "output.weight" => head.add(tensor),
                // Of the embedding a step reads a row a token, unless it is the output matrix too.
                "token_embd.weight" if tied => head.add(tensor),
                "token_embd.weight" => {}
                name if name.contains("_exps.") => experts.add(tensor),
                _ => layers.add(tensor),
            }
        }
        let used = config.experts.as_ref().map_or(1.0, |experts| experts.used as f64 / experts.count.max(1) as f64);
        let lengths = config.key_length + config.value_length;
        let attention = 2.0 * (config.block_count * config.heads * lengths) as f64;
        Self { layers, experts, used, head, cache_bytes, attention }
    }

    /// Returns what a case costs within the clock.
    pub fn work(&self, case: &Case) -> Work {
        let mut work = Work::default();
        for chunk in case.chunks(case.prompt) {
            let step = self.step(chunk.rows, usize::from(chunk.logits), 1, case.depth + chunk.start);
            work.bytes += step.bytes * case.sequences as f64;
            work.operations += step.operations * case.sequences as f64;
        }
        for position in (case.depth + case.prompt..).take(case.generate) {
            let step = self.step(case.sequences, case.sequences, case.sequences, position);
            work.bytes += step.bytes;
            work.operations += step.operations;
        }
        work
    }

    /// A step of `rows` new tokens in `sequences` equal parts, each after `start` tokens of context.
    fn step(&self, rows: usize, outputs: usize, sequences: usize, start: usize) -> Work {
        let (rows, outputs, sequences, start) = (rows as f64, outputs as f64, sequences as f64, start as f64);
        let own = rows / sequences;
        // Of randomly chosen experts, so many are used by at least one row.
        let touched = 1.0 - (1.0 - self.used).powf(rows);
        let head = if outputs > 0.0 { self.head.bytes } else { 0.0 };
        // Row i of a sequence attends to start + i + 1 tokens.
        let attended = sequences * (own * start + own * (own + 1.0) / 2.0);
        let products = rows * (self.layers.elements + self.used * self.experts.elements) + outputs * self.head.elements;
        Work {
            bytes: self.layers.bytes
                + touched * self.experts.bytes
                + head
                + sequences * (start + own) * self.cache_bytes,
            operations: 2.0 * products + self.attention * attended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::Grid;

    const COSTS: Costs = Costs {
        layers: Part { bytes: 1000.0, elements: 2000.0 },
        experts: Part { bytes: 0.0, elements: 0.0 },
        used: 1.0,
        head: Part { bytes: 100.0, elements: 200.0 },
        cache_bytes: 4.0,
        attention: 6.0,
    };

    fn case(prompt: usize, generate: usize, depth: usize, sequences: usize) -> Case {
        let grid = Grid {
            prompts: vec![],
            generations: vec![],
            pairs: vec![(prompt, generate)],
            depths: vec![depth],
            sequences: vec![sequences],
            batches: vec![8],
            micro_batches: vec![4],
            ..Grid::default()
        };
        grid.cases().swap_remove(0)
    }

    #[test]
    fn a_generated_token_reads_everything_once() {
        let one = COSTS.work(&case(0, 1, 9, 1));
        assert_eq!(one, Work { bytes: 1000.0 + 100.0 + 10.0 * 4.0, operations: 2.0 * 2200.0 + 10.0 * 6.0 });
        // Two: at positions 9 and 10.
        let two = COSTS.work(&case(0, 2, 9, 1));
        assert_eq!(two, Work { bytes: 2.0 * 1100.0 + 21.0 * 4.0, operations: 4.0 * 2200.0 + 21.0 * 6.0 });
        // Three sequences share the weights and nothing else.
        let three = COSTS.work(&case(0, 1, 9, 3));
        assert_eq!(three, Work { bytes: 1100.0 + 30.0 * 4.0, operations: 6.0 * 2200.0 + 30.0 * 6.0 });
    }

    #[test]
    fn a_prompt_reads_the_weights_once_a_step_and_the_head_once_a_batch() {
        // 6 tokens: steps of 4 and 2, one batch. Attended: 1 + 2 + ... + 6; read by the steps: 4 and 6 tokens.
        let work = COSTS.work(&case(6, 0, 0, 1));
        let operations = 2.0 * (6.0 * 2000.0 + 200.0) + 21.0 * 6.0;
        assert_eq!(work, Work { bytes: 2.0 * 1000.0 + 100.0 + 10.0 * 4.0, operations });
    }

    #[test]
    fn a_token_uses_a_share_of_the_experts() {
        let experts = Part { bytes: 800.0, elements: 1600.0 };
        let costs = Costs { experts, used: 0.25, cache_bytes: 0.0, attention: 0.0, ..COSTS };
        let one = costs.work(&case(0, 1, 0, 1));
        assert_eq!(one, Work { bytes: 1100.0 + 200.0, operations: 2.0 * (2200.0 + 400.0) });
        let two = costs.work(&case(0, 1, 0, 2));
        assert_eq!(two.bytes, 1100.0 + 800.0 * (1.0 - 0.75 * 0.75));
    }
}
