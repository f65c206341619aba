//! The block manager under the built-in model: what is exact stays exact, and what compression costs.

#![cfg(feature = "lamb")]

use std::sync::Arc;

use woolly::Tokenizer;
use woolly_cpu::{Cpu, CpuOptions};
use woolly_engine::kv::{BlockManager, EvictionPolicy, Fingerprint, KvOptions, KvStore, Preemption, SeqId};
use woolly_model::{Decoder, Model, Runner, RunnerOptions, Step};
use woolly_tensor::{BLOCK_TOKENS, Batch, CacheType, Sequence};

const TEXT: &str = include_str!("../src/quantize/benchmark.txt");
const BLOCKS: usize = 24;

/// A decoder with a managed cache that has memory for `blocks` blocks.
struct Rig {
    manager: BlockManager,
    store: KvStore,
    decoder: Box<dyn Decoder>,
}

fn text() -> Vec<u32> {
    let tokenizer = Tokenizer::from_metadata(woolly::lamb::open().expect("a valid file").metadata());
    tokenizer.expect("a known tokenizer").encode(TEXT, true, false)
}

fn rig(blocks: usize, compress: bool, spill: bool) -> Rig {
    let cpu = Arc::new(Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("a processor"));
    let file = woolly::lamb::open().expect("a valid file");
    let model = Arc::new(Model::load(&file, &*cpu, &mut |_| ()).expect("a valid model"));
    let context = BLOCKS * BLOCK_TOKENS;
    let options = RunnerOptions { context, max_rows: 64, max_outputs: 64, storage: CacheType::F16 };
    let decoder: Box<dyn Decoder> = Box::new(Runner::new(cpu, model, options).expect("little memory"));
    let block_bytes = decoder.block_bytes();
    let packed_bytes = KvStore::packed_bytes(CacheType::F16, block_bytes).filter(|_| compress);
    let options = |max_bytes| KvOptions {
        blocks: BLOCKS,
        block_bytes,
        block_memory: decoder.block_memory(),
        packed_bytes,
        max_bytes,
        spill_bytes: if spill { 1 << 30 } else { 0 },
        eviction: EvictionPolicy::LRU,
        sequences: 4,
    };
    // Everything but blocks is the same for every limit that is not tiny.
    let overhead = BlockManager::new(options(1 << 30)).expect("room").stats().overhead_bytes;
    let manager = BlockManager::new(options(overhead + blocks * decoder.block_memory())).expect("room");
    let store = KvStore::new(CacheType::F16, block_bytes, &std::env::temp_dir());
    Rig { manager, store, decoder }
}

impl Rig {
    /// Computes `ids` after what a sequence has, `rows` at a time; returns the logits of all of them.
    fn compute(&mut self, seq: &SeqId, ids: &[u32], rows: usize) -> Vec<Vec<f32>> {
        let vocabulary = self.decoder.config().vocab_size;
        let mut found = Vec::new();
        for ids in ids.chunks(rows) {
            self.manager.reserve(seq, ids.len()).expect("room");
            self.store.carry_out(&mut self.manager, &mut *self.decoder).expect("contents can be moved");
            let (start, blocks) = (self.manager.computed(seq), self.manager.table(seq));
            let sequences = [Sequence { rows: 0..ids.len(), start, blocks }];
            let outputs: Vec<u32> = (0..ids.len() as u32).collect();
            let step = Step { ids, batch: Batch { sequences: &sequences }, outputs: &outputs };
            let mut logits = vec![0.0; ids.len() * vocabulary];
            self.decoder.forward(step, &mut logits).expect("computed");
            self.manager.commit(seq, ids);
            self.manager.audit().expect("sound");
            found.extend(logits.chunks(vocabulary).map(<[f32]>::to_vec));
        }
        found
    }

    fn begin(&mut self, ids: &[u32]) -> (SeqId, usize) {
        let begun = self.manager.begin(ids, 0, ids.len());
        (begun.seq, begun.cached_tokens)
    }

    /// Runs another prompt that needs `blocks` blocks, so that others give way.
    fn crowd(&mut self, blocks: usize) {
        let ids: Vec<u32> = text().into_iter().rev().take(blocks * BLOCK_TOKENS).collect();
        let (other, cached) = self.begin(&ids);
        self.compute(&other, &ids[cached..], 64);
        self.manager.discard(other);
    }
}

/// Logits do not depend on where keys and values have been meanwhile: shared, copied, evicted, in a file, saved.
#[test]
fn what_is_exact_stays_exact() {
    let ids = &text()[..120];
    let mut plain = rig(BLOCKS, false, false);
    let (seq, _) = plain.begin(ids);
    // One row at a time everywhere, so that only the cache can make a difference.
    let expected = plain.compute(&seq, ids, 1);

    let mut shared = rig(BLOCKS, false, false);
    let (first, _) = shared.begin(&ids[..90]);
    shared.compute(&first, &ids[..90], 1);
    let (second, cached) = shared.begin(ids);
    // The third block is still being written by the first, so that only two are found.
    assert_eq!(cached, 64);
    assert_eq!(shared.compute(&second, &ids[64..], 1), expected[64..], "shared with a sequence that runs");
    shared.manager.release(first);
    let (third, cached) = shared.begin(&[&ids[..80], &[7, 7]].concat());
    assert_eq!(cached, 80);
    shared.compute(&third, &[7, 7], 1);
    let (fourth, cached) = shared.begin(ids);
    assert_eq!(cached, 96);
    assert_eq!(shared.compute(&fourth, &ids[96..], 1), expected[96..], "a copied block leaves the original alone");
    assert!(shared.manager.stats().copies >= 1);

    let mut spilled = rig(6, false, true);
    let (held, _) = spilled.begin(ids);
    spilled.compute(&held, &ids[..100], 1);
    spilled.manager.preempt(&held, Preemption::Hold);
    spilled.crowd(6);
    assert_eq!(spilled.manager.stats().spilled, 4);
    assert_eq!(spilled.compute(&held, &ids[100..], 1), expected[100..], "brought back from the file");

    let mut dropped = rig(6, false, false);
    let (held, _) = dropped.begin(ids);
    dropped.compute(&held, &ids[..100], 1);
    dropped.manager.preempt(&held, Preemption::Hold);
    dropped.crowd(6);
    let kept = dropped.manager.computed(&held);
    assert_eq!(kept, 0);
    assert_eq!(dropped.compute(&held, ids, 1), expected, "computed again");

    let mut file = Vec::new();
    let fingerprint = Fingerprint::new().with(b"woolly-lamb");
    plain.store.save(&mut plain.manager, &mut *plain.decoder, &seq, fingerprint, &mut file).expect("a vector");
    let mut other = rig(BLOCKS, false, false);
    let restored = other.store.restore(&mut other.manager, &mut *other.decoder, 0, fingerprint, &mut &file[..]);
    assert_eq!(restored.expect("the same model").cached_tokens, 120);
    let (seq, cached) = other.begin(ids);
    assert_eq!((cached, other.compute(&seq, &ids[119..], 1)), (119, expected[119..].to_vec()), "saved and restored");
}

/// Half of the context is compressed; the divergence of what follows from what would have followed is the cost.
#[test]
fn compression_costs_little() {
    let ids = &text()[..512];
    let mut plain = rig(BLOCKS, false, false);
    let (seq, _) = plain.begin(ids);
    let expected = plain.compute(&seq, ids, 64).split_off(256);

    let mut packed = rig(12, true, false);
    let (held, _) = packed.begin(ids);
    packed.compute(&held, &ids[..256], 64);
    packed.manager.preempt(&held, Preemption::Hold);
    packed.crowd(8);
    let stats = packed.manager.stats();
    assert_eq!((stats.packed, stats.dropped), (8, 0), "{stats:?}");
    packed.manager.resize(1 << 30).expect("more");
    let found = packed.compute(&held, &ids[256..], 64);

    let costs: Vec<f64> = expected.iter().zip(&found).map(|(p, q)| divergence(p, q)).collect();
    let mean = costs.iter().sum::<f64>() / costs.len() as f64;
    let agree = expected.iter().zip(&found).filter(|(p, q)| likeliest(p) == likeliest(q)).count();
    let ratio = packed.decoder.block_bytes() as f64 / (stats.packed_bytes as f64 / 8.0);
    println!("{ratio:.2} times smaller; mean divergence {mean:.2e} nats; {agree} of {} choices agree", costs.len());
    assert!(ratio >= 2.0);
    assert!(mean > 0.0, "nothing was compressed");
    assert!(mean < 1e-3 && agree * 100 >= costs.len() * 97, "mean divergence {mean:.2e}, {agree} choices agree");
}

/// Returns the Kullback-Leibler divergence of softmax `q` from softmax `p`, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |x: &[f32]| x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
    let (sum_p, sum_q) = (log_sum(p), log_sum(q));
    let log = |(&p, &q): (&f32, &f32)| (f64::from(p) - sum_p, f64::from(q) - sum_q);
    p.iter().zip(q).map(log).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn likeliest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}
