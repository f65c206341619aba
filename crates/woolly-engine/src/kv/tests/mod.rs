//! Tests of the block manager with a decoder whose "keys and values" are known for every token and beginning.

mod ladder;
mod random;
mod saved;
mod sharing;

use woolly_model::{Config, Decoder, Error, Step};
use woolly_tensor::{BLOCK_TOKENS, CacheType};

use super::hash;
use super::*;

/// Floats of a token.
const WIDTH: usize = 4;
const BLOCK_BYTES: usize = BLOCK_TOKENS * WIDTH * 4;

/// A device that stores real bytes: for each token, floats that depend on everything up to it.
struct Tape {
    config: Config,
    /// `[block][element][token]`
    cache: Vec<[[f32; BLOCK_TOKENS]; WIDTH]>,
}

impl Tape {
    fn new(blocks: usize) -> Self {
        Self { config: crate::fake::config(), cache: vec![[[f32::NAN; BLOCK_TOKENS]; WIDTH]; blocks] }
    }

    fn write(&mut self, block: u32, slot: usize, truth: [f32; WIDTH]) {
        self.cache[block as usize].iter_mut().zip(truth).for_each(|(row, x)| row[slot] = x);
    }

    fn read(&self, block: u32, slot: usize) -> [f32; WIDTH] {
        self.cache[block as usize].map(|row| row[slot])
    }
}

/// What the cache must hold for the last token of `ids`: multiples of 1/1024 between 1 and 2.
fn truth(ids: &[u32]) -> [f32; WIDTH] {
    let hash = hash::words(hash::EMPTY, ids) >> 40;
    std::array::from_fn(|i| 1.0 + (hash >> (10 * i) & 1023) as f32 / 1024.0)
}

impl Decoder for Tape {
    fn config(&self) -> &Config {
        &self.config
    }

    fn max_rows(&self) -> usize {
        unreachable!("nothing is computed")
    }

    fn max_outputs(&self) -> usize {
        unreachable!("nothing is computed")
    }

    fn cache_blocks(&self) -> usize {
        self.cache.len()
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Error> {
        self.cache[to as usize] = self.cache[from as usize];
        Ok(())
    }

    fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), Error> {
        let floats = self.cache[block as usize].as_flattened();
        out.as_chunks_mut::<4>().0.iter_mut().zip(floats).for_each(|(to, from)| *to = from.to_le_bytes());
        Ok(())
    }

    fn keep_tokens(&self, tokens: usize, saved: &mut [u8]) -> Result<(), Error> {
        saved.chunks_exact_mut(4 * BLOCK_TOKENS).for_each(|element| element[4 * tokens..].fill(0));
        Ok(())
    }

    fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), Error> {
        let floats = self.cache[block as usize].as_flattened_mut();
        floats.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(to, &from)| *to = f32::from_le_bytes(from));
        Ok(())
    }

    fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), Error> {
        blocks.iter().for_each(|&block| self.cache[block as usize] = [[f32::NAN; BLOCK_TOKENS]; WIDTH]);
        Ok(())
    }

    fn forward(&mut self, _step: Step<'_>, _logits: &mut [f32]) -> Result<(), Error> {
        unreachable!("nothing is computed")
    }
}

/// A sequence of a test, with all the tokens it should have.
struct Running {
    seq: SeqId,
    salt: u64,
    /// Computed tokens as the test believes; the manager may have forgotten the last of them.
    ids: Vec<u32>,
}

/// Manager, store and device, driven as an engine would.
struct Rig {
    manager: BlockManager,
    store: KvStore,
    tape: Tape,
    /// Largest error of an element that is accepted: 0 where nothing is compressed.
    tolerance: f32,
}

/// Options with `blocks` blocks on the device and memory for all of them.
fn plain(blocks: usize) -> KvOptions {
    KvOptions {
        blocks,
        block_bytes: BLOCK_BYTES,
        block_memory: BLOCK_BYTES,
        packed_bytes: None,
        max_bytes: 1 << 30,
        spill_bytes: 0,
        eviction: EvictionPolicy::LRU,
        sequences: 4,
    }
}

fn packed_bytes() -> Option<usize> {
    KvStore::packed_bytes(CacheType::F32, BLOCK_BYTES)
}

/// Sets the limit of memory so that it allows `blocks` blocks on the device.
fn limited(options: KvOptions, blocks: usize) -> KvOptions {
    let roomy = BlockManager::new(options.clone()).expect("room");
    let overhead = roomy.stats().overhead_bytes;
    let limit = KvOptions { max_bytes: overhead + blocks * BLOCK_BYTES, ..options };
    // A lower limit allows fewer compressed blocks and so smaller tables; what that saves is given back.
    let overhead = BlockManager::new(limit.clone()).map_or(overhead, |manager| manager.stats().overhead_bytes);
    KvOptions { max_bytes: overhead + blocks * BLOCK_BYTES, ..limit }
}

impl Rig {
    fn new(options: KvOptions) -> Self {
        let tape = Tape::new(options.blocks);
        let store = KvStore::new(CacheType::F32, BLOCK_BYTES, &std::env::temp_dir());
        let tolerance = if options.packed_bytes.is_some() { 2.0 / 63.0 } else { 0.0 };
        Self { manager: BlockManager::new(options).expect("room"), store, tape, tolerance }
    }

    /// Begins a sequence; returns it and the tokens it found.
    fn begin(&mut self, ids: &[u32], salt: u64) -> (Running, usize) {
        let Begun { seq, cached_tokens } = self.manager.begin(ids, salt, 0);
        self.manager.audit().expect("sound");
        (Running { seq, salt, ids: ids[..cached_tokens].to_vec() }, cached_tokens)
    }

    /// Computes further tokens of a sequence.
    fn compute(&mut self, running: &mut Running, ids: &[u32]) -> Result<(), NoSpace> {
        running.ids.truncate(self.manager.computed(&running.seq));
        self.manager.reserve(&running.seq, ids.len())?;
        self.carry_out();
        assert_eq!(self.manager.computed(&running.seq), running.ids.len());
        for &id in ids {
            let position = running.ids.len();
            running.ids.push(id);
            let block = self.manager.table(&running.seq)[position / BLOCK_TOKENS];
            self.tape.write(block, position % BLOCK_TOKENS, truth(&running.ids));
        }
        self.manager.commit(&running.seq, ids);
        self.manager.audit().expect("sound");
        self.verify(running);
        Ok(())
    }

    /// Begins a sequence and computes all of it.
    fn run(&mut self, ids: &[u32]) -> (Running, usize) {
        let (mut running, cached) = self.begin(ids, 0);
        self.compute(&mut running, &ids[cached..]).expect("room");
        (running, cached)
    }

    fn carry_out(&mut self) {
        self.store.carry_out(&mut self.manager, &mut self.tape).expect("contents can be moved");
    }

    /// Compares what lies in a sequence's blocks with what should.
    fn verify(&self, running: &Running) {
        let table = self.manager.table(&running.seq);
        let known: Vec<u32> = self.manager.tokens(&running.seq).flatten().copied().collect();
        assert_eq!(known, running.ids);
        for end in 1..=running.ids.len() {
            let position = end - 1;
            let found = self.tape.read(table[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
            let expected = truth(&running.ids[..end]);
            let near = found.iter().zip(expected).all(|(x, y)| (x - y).abs() <= self.tolerance);
            assert!(near, "position {position}: {found:?}, not {expected:?}");
        }
    }
}

/// Returns `count` tokens that no other `family` has.
fn tokens(family: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| family * 10_000 + i).collect()
}
