//! The limit of memory for the cache is kept, whatever gives way: the blocks of the device that hold something, and what the
//! allocator says that all the rest takes.

mod fake;
#[path = "fake/weighing.rs"]
mod weighing;

use std::collections::HashSet;

use woolly_engine::Rng;
use woolly_engine::kv::{BlockManager, EvictionPolicy, KvOptions, KvStore, NoSpace, Preemption, SeqId};
use woolly_model::{Config, Decoder, Error, Step};
use woolly_tensor::CacheType;

/// Bytes of a block's contents, and of the pages it takes.
const CONTENTS: usize = 60 << 10;
const PAGES: usize = 64 << 10;
const BLOCKS: usize = 24;

/// A device that knows which of its blocks take memory.
struct Occupied {
    config: Config,
    blocks: HashSet<u32>,
    /// Most of them that ever did at once.
    peak: usize,
}

impl Occupied {
    fn write(&mut self, block: u32) {
        self.blocks.insert(block);
        self.peak = self.peak.max(self.blocks.len());
    }
}

impl Decoder for Occupied {
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
        BLOCKS
    }

    fn block_bytes(&self) -> usize {
        CONTENTS
    }

    fn block_memory(&self) -> usize {
        PAGES
    }

    fn copy_block(&mut self, _: u32, to: u32) -> Result<(), Error> {
        self.write(to);
        Ok(())
    }

    fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), Error> {
        assert!(self.blocks.contains(&block), "a block that holds nothing");
        out.fill(0);
        Ok(())
    }

    fn keep_tokens(&self, _: usize, _: &mut [u8]) -> Result<(), Error> {
        Ok(())
    }

    fn load_block(&mut self, block: u32, _: &[u8]) -> Result<(), Error> {
        self.write(block);
        Ok(())
    }

    fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), Error> {
        self.blocks.retain(|block| !blocks.contains(block));
        Ok(())
    }

    fn forward(&mut self, _: Step<'_>, _: &mut [f32]) -> Result<(), Error> {
        unreachable!("nothing is computed")
    }
}

struct World {
    manager: BlockManager,
    store: KvStore,
    device: Occupied,
    live: Vec<(SeqId, bool)>,
    serial: u32,
}

impl World {
    fn begin(&mut self, rng: &mut Rng) {
        let tokens = 1 + below(rng, 300);
        self.serial += 1;
        // Every third begins as others do.
        let family = if self.serial.is_multiple_of(3) { 0 } else { self.serial };
        let ids: Vec<u32> = (0..tokens as u32).map(|i| family * 1000 + i).collect();
        let begun = self.manager.begin(&ids, 0, BLOCKS * 32);
        self.live.push((begun.seq, true));
        let missing = &ids[begun.cached_tokens..];
        let last = self.live.len() - 1;
        self.compute(last, missing);
    }

    /// Computes further tokens of a sequence; without room it waits.
    fn compute(&mut self, which: usize, ids: &[u32]) {
        let Some((seq, runs)) = self.live.get_mut(which) else { return };
        *runs = self.manager.reserve(seq, ids.len()).is_ok();
        if !*runs {
            return self.manager.preempt(seq, Preemption::Hold);
        }
        self.store.carry_out(&mut self.manager, &mut self.device).expect("contents can be moved");
        let first = self.manager.computed(seq) / 32;
        self.manager.table(seq)[first..].iter().for_each(|&block| self.device.write(block));
        self.manager.commit(seq, ids);
    }

    fn turn(&mut self, rng: &mut Rng, limit: usize) -> Result<(), NoSpace> {
        let which = below(rng, 8);
        match below(rng, 10) {
            0..=2 if self.live.len() < 6 => self.begin(rng),
            0..=5 => {
                let ids: Vec<u32> = (0..1 + below(rng, 40) as u32).map(|i| 1_000_000 + self.serial * 100 + i).collect();
                self.compute(which, &ids);
            }
            6 | 7 if which < self.live.len() => self.manager.preempt(&self.live[which].0, Preemption::Hold),
            8 if which < self.live.len() => self.manager.release(self.live.swap_remove(which).0),
            _ => self.manager.resize(limit - below(rng, limit / 2))?,
        }
        Ok(())
    }
}

fn below(rng: &mut Rng, n: usize) -> usize {
    (rng.unit() * n as f64) as usize
}

#[test]
fn memory_in_use_never_exceeds_the_limit() {
    let limit = 14 * PAGES;
    let mut rng = Rng::new(9);
    for (compress, spill) in [(false, 0), (true, 0), (true, 8), (false, 8)] {
        let device = Occupied { config: fake::config(), blocks: HashSet::with_capacity(2 * BLOCKS), peak: 0 };
        let live = Vec::with_capacity(8);
        let before = weighing::bytes();
        let options = KvOptions {
            blocks: BLOCKS,
            block_bytes: CONTENTS,
            block_memory: PAGES,
            packed_bytes: KvStore::packed_bytes(CacheType::F16, CONTENTS).filter(|_| compress),
            max_bytes: limit,
            spill_bytes: spill * CONTENTS as u64,
            eviction: EvictionPolicy::LRU,
            sequences: 8,
        };
        let manager = BlockManager::new(options).expect("room");
        let store = KvStore::new(CacheType::F16, CONTENTS, &std::env::temp_dir());
        let mut world = World { manager, store, device, live, serial: 0 };
        let mut most = 0;
        for turn in 0..1000 {
            // A limit that running sequences exceed is refused and changes nothing.
            let _ = world.turn(&mut rng, limit);
            world.store.carry_out(&mut world.manager, &mut world.device).expect("contents can be moved");
            let blocks = world.device.blocks.len() * PAGES;
            let total = blocks + weighing::bytes() - before;
            let stats = world.manager.stats();
            assert!(total <= stats.memory_bytes(), "turn {turn}: {total} bytes in use, {stats:?}");
            assert!(stats.memory_bytes() <= limit, "turn {turn}: {stats:?}");
            most = most.max(total);
        }
        let stats = world.manager.stats();
        assert!((stats.packed > 0, stats.spilled > 0) == (compress, spill > 0), "{stats:?}");
        assert!(most > limit * 3 / 4, "{most} of {limit}: the limit was never approached");
        assert!(world.device.peak * PAGES <= limit, "{} blocks at once", world.device.peak);
        world.live.drain(..).for_each(|(seq, _)| world.manager.release(seq));
    }
}
