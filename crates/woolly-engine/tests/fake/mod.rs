//! A decoder for tests whose model is known: it counts upwards, and each token's logits depend on the tokens before it
//! only through what is in the cache, so that a wrong position or a stale cache shows.

#![allow(dead_code, reason = "each test that includes this module uses its part of it")]

pub(crate) mod recalling;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use woolly_gguf::{GGUFLoader, GGUFWriter};
use woolly_model::{Config, Decoder, Error, Model, Step};
use woolly_quant::TensorType;
use woolly_tensor::{BLOCK_TOKENS, Reference};

/// Tokens the fake model knows.
pub(crate) const VOCAB: usize = 50;
/// The token after which nothing comes.
pub(crate) const END: u32 = 10;
/// Logit of the following token; those of all others are 0.
pub(crate) const PEAK: f32 = 20.0;

/// Predicts `id + 1`; see the module.
pub(crate) struct Counting {
    config: Config,
    max_rows: usize,
    /// Token at each position.
    cache: Vec<u32>,
    /// First position, rows and logits of each step so far.
    pub(crate) steps: Arc<Mutex<Vec<(usize, usize, usize)>>>,
    /// Position whose logits are not finite.
    pub(crate) fault_at: Option<usize>,
}

impl Counting {
    pub(crate) fn new(context: usize, max_rows: usize) -> Self {
        let steps = Arc::new(Mutex::new(Vec::with_capacity(1024)));
        Self {
            config: config(),
            max_rows,
            cache: vec![0; context.next_multiple_of(BLOCK_TOKENS)],
            steps,
            fault_at: None,
        }
    }
}

impl Decoder for Counting {
    fn config(&self) -> &Config {
        &self.config
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn max_outputs(&self) -> usize {
        3
    }

    fn cache_blocks(&self) -> usize {
        self.cache.len() / BLOCK_TOKENS
    }

    fn block_bytes(&self) -> usize {
        4 * BLOCK_TOKENS
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Error> {
        self.cache.copy_within(of_block(from), of_block(to).start);
        Ok(())
    }

    fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(out.len(), self.block_bytes());
        for (to, token) in out.chunks_exact_mut(4).zip(&self.cache[of_block(block)]) {
            to.copy_from_slice(&token.to_le_bytes());
        }
        Ok(())
    }

    fn keep_tokens(&self, tokens: usize, saved: &mut [u8]) -> Result<(), Error> {
        saved[4 * tokens..].fill(0);
        Ok(())
    }

    fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), Error> {
        assert_eq!(bytes.len(), self.block_bytes());
        for (token, from) in self.cache[of_block(block)].iter_mut().zip(bytes.as_chunks::<4>().0) {
            *token = u32::from_le_bytes(*from);
        }
        Ok(())
    }

    fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), Error> {
        // An id that no test expects to continue from.
        blocks.iter().for_each(|&block| self.cache[of_block(block)].fill(0));
        Ok(())
    }

    fn forward(&mut self, step: Step<'_>, logits: &mut [f32]) -> Result<(), Error> {
        let sequence = &step.batch.sequences[0];
        assert_eq!((step.ids.len(), logits.len()), (sequence.rows.len(), step.outputs.len() * VOCAB));
        assert!(step.ids.len() <= self.max_rows && step.outputs.len() <= self.max_outputs());
        self.steps.lock().expect("unpoisoned").push((sequence.start, step.ids.len(), step.outputs.len()));
        self.cache[sequence.start..sequence.end()].copy_from_slice(step.ids);
        for (row, &output) in logits.chunks_exact_mut(VOCAB).zip(step.outputs) {
            let position = sequence.start + output as usize;
            row.fill(0.0);
            row[(self.cache[position] as usize + 1) % VOCAB] = PEAK;
            if self.fault_at == Some(position) {
                row[1] = f32::NAN;
            }
        }
        Ok(())
    }
}

fn of_block(block: u32) -> Range<usize> {
    let start = block as usize * BLOCK_TOKENS;
    start..start + BLOCK_TOKENS
}

/// Hyper-parameters can only come from a model file, so a smallest one is made: one layer of width 2, all zeros.
pub(crate) fn config() -> Config {
    let shapes: [(&str, &[u64]); 11] = [
        ("token_embd.weight", &[2, VOCAB as u64]),
        ("output_norm.weight", &[2]),
        ("blk.0.attn_norm.weight", &[2]),
        ("blk.0.attn_q.weight", &[2, 2]),
        ("blk.0.attn_k.weight", &[2, 2]),
        ("blk.0.attn_v.weight", &[2, 2]),
        ("blk.0.attn_output.weight", &[2, 2]),
        ("blk.0.ffn_norm.weight", &[2]),
        ("blk.0.ffn_gate.weight", &[2, 2]),
        ("blk.0.ffn_up.weight", &[2, 2]),
        ("blk.0.ffn_down.weight", &[2, 2]),
    ];
    let mut file = GGUFWriter::new();
    file.set("general.architecture", "llama").set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    for key in ["embedding_length", "feed_forward_length"] {
        file.set(&format!("llama.{key}"), 2_u32);
    }
    for key in ["block_count", "attention.head_count"] {
        file.set(&format!("llama.{key}"), 1_u32);
    }
    file.set("llama.context_length", 4096_u32);
    for (name, dims) in shapes {
        let bytes = dims.iter().product::<u64>() as usize * 4;
        file.tensor(name, dims, TensorType::F32, vec![0; bytes]);
    }
    let bytes = file.to_bytes().expect("a valid file");
    let loader = GGUFLoader::from_bytes(bytes.into()).expect("a valid file");
    Model::load(&loader, &Reference::new(), &mut |_| ()).expect("a valid model").config().clone()
}
