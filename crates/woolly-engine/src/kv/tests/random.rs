//! Random operations: contents, counts and limits hold after each, whatever gives way.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Begin a prompt: the first tokens of a family, then others.
    Begin {
        family: u32,
        shared: usize,
        own: usize,
        salt: u64,
    },
    /// Compute tokens of a sequence.
    Step {
        which: usize,
        rows: usize,
    },
    Release {
        which: usize,
    },
    Discard {
        which: usize,
    },
    Hold {
        which: usize,
    },
    Recompute {
        which: usize,
    },
    Truncate {
        which: usize,
        by: usize,
    },
    Resize {
        blocks: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0_usize..8;
    prop_oneof![
        3 => (0_u32..3, 0_usize..140, 0_usize..40, 0_u64..2)
            .prop_map(|(family, shared, own, salt)| Op::Begin { family, shared, own, salt }),
        6 => (which.clone(), 1_usize..50).prop_map(|(which, rows)| Op::Step { which, rows }),
        2 => which.clone().prop_map(|which| Op::Release { which }),
        1 => which.clone().prop_map(|which| Op::Discard { which }),
        3 => which.clone().prop_map(|which| Op::Hold { which }),
        1 => which.clone().prop_map(|which| Op::Recompute { which }),
        1 => (which, 0_usize..70).prop_map(|(which, by)| Op::Truncate { which, by }),
        1 => (2_usize..10).prop_map(|blocks| Op::Resize { blocks }),
    ]
}

/// What was ever computed, by name space: the most that a prompt can find.
#[derive(Default)]
struct History {
    seen: Vec<(u64, Vec<u32>)>,
}

impl History {
    fn longest(&self, ids: &[u32], salt: u64) -> usize {
        let common = |other: &Vec<u32>| other.iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.seen.iter().filter(|(other, _)| *other == salt).map(|(_, other)| common(other)).max().unwrap_or(0)
    }
}

struct World {
    rig: Rig,
    running: Vec<Running>,
    history: History,
    overhead: usize,
}

impl World {
    fn apply(&mut self, op: &Op, serial: u32) {
        match *op {
            Op::Begin { family, shared, own, salt } => self.begin(family, shared, own, salt, serial),
            Op::Step { which, rows } => self.step(which, rows, serial),
            Op::Release { which } => self.end(which, BlockManager::release),
            Op::Discard { which } => self.end(which, BlockManager::discard),
            Op::Hold { which } => self.preempt(which, Preemption::Hold),
            Op::Recompute { which } => self.preempt(which, Preemption::Recompute),
            Op::Truncate { which, by } => self.truncate(which, by),
            Op::Resize { blocks } => self.resize(blocks),
        }
        self.rig.manager.audit().expect("sound");
    }

    fn begin(&mut self, family: u32, shared: usize, own: usize, salt: u64, serial: u32) {
        if self.running.len() >= 6 {
            return;
        }
        let mut ids = tokens(family, shared);
        ids.extend((0..own as u32).map(|i| 1_000_000 + serial * 100 + i));
        let foreseen = self.rig.manager.cached_tokens(&ids, salt);
        let (running, cached) = self.rig.begin(&ids, salt);
        assert_eq!(cached, foreseen);
        assert!(cached <= self.history.longest(&ids, salt).min(ids.len().saturating_sub(1)));
        self.running.push(running);
        let last = self.running.len() - 1;
        self.compute(last, &ids[cached..]);
    }

    fn compute(&mut self, which: usize, ids: &[u32]) {
        let running = &mut self.running[which];
        let available = self.rig.manager.available_blocks();
        match self.rig.compute(running, ids) {
            Ok(()) => self.history.seen.push((running.salt, running.ids.clone())),
            Err(refused) => assert!(refused.needed > 0 && refused.available <= available, "{refused}"),
        }
    }

    fn step(&mut self, which: usize, rows: usize, serial: u32) {
        let Some(running) = self.running.get(which) else { return };
        let computed = self.rig.manager.computed(&running.seq);
        // Mostly what the families have in common, so that running sequences meet.
        let family = running.ids.first().map_or(0, |id| id / 10_000);
        let ids: Vec<u32> = match serial % 3 {
            0 => (0..rows as u32).map(|i| serial * 100 + i).collect(),
            _ => tokens(family, computed + rows).split_off(computed),
        };
        self.compute(which, &ids);
    }

    fn end(&mut self, which: usize, how: fn(&mut BlockManager, SeqId)) {
        if which < self.running.len() {
            how(&mut self.rig.manager, self.running.swap_remove(which).seq);
        }
    }

    fn preempt(&mut self, which: usize, how: Preemption) {
        if let Some(running) = self.running.get(which) {
            self.rig.manager.preempt(&running.seq, how);
        }
    }

    fn truncate(&mut self, which: usize, by: usize) {
        let Some(running) = self.running.get(which) else { return };
        let keep = self.rig.manager.computed(&running.seq).saturating_sub(by);
        self.rig.manager.truncate(&running.seq, keep);
        assert_eq!(self.rig.manager.computed(&running.seq), keep);
    }

    fn resize(&mut self, blocks: usize) {
        let before = self.rig.manager.stats();
        match self.rig.manager.resize(self.overhead + blocks * BLOCK_BYTES) {
            Ok(()) => assert_eq!(self.rig.manager.total_blocks(), blocks.min(12)),
            Err(refused) => assert!(refused.needed > blocks, "{refused}"),
        }
        assert!(self.rig.manager.stats().available_blocks <= before.available_blocks.max(blocks));
    }

    /// Ends everything; nothing may stay in use.
    fn finish(mut self) {
        while !self.running.is_empty() {
            self.end(0, BlockManager::release);
        }
        self.rig.carry_out();
        let stats = self.rig.manager.stats();
        assert_eq!((stats.used_blocks, stats.packed_bytes, stats.spilled_bytes), (0, 0, 0));
    }
}

fn options() -> impl Strategy<Value = KvOptions> {
    let eviction = prop_oneof![Just(EvictionPolicy::LRU), Just(EvictionPolicy::LFU)];
    (2_usize..9, any::<bool>(), 0_u64..6, eviction).prop_map(|(blocks, compress, spill, eviction)| {
        let spill_bytes = spill * BLOCK_BYTES as u64;
        let packed_bytes = packed_bytes().filter(|_| compress);
        limited(KvOptions { packed_bytes, spill_bytes, eviction, ..plain(12) }, blocks)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contents_counts_and_limits_hold_after_every_operation(
        options in options(),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let rig = Rig::new(options);
        let overhead = rig.manager.stats().overhead_bytes;
        let mut world = World { rig, running: Vec::new(), history: History::default(), overhead };
        for (serial, op) in ops.iter().enumerate() {
            world.apply(op, serial as u32);
        }
        world.finish();
    }
}
