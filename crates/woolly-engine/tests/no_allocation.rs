//! The decode step allocates nothing: neither the generator nor any sampler.

mod fake;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use fake::{Counting, END};
use woolly_engine::kv::{BlockManager, EvictionPolicy, KvOptions};
use woolly_engine::{CancelToken, Generator, Request, SamplingParams};

/// Counts the allocations of each thread, so that the test harness's own are not taken for the generator's.
struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system allocator, which meets the contract; counting touches only a
// thread-local number that needs neither allocation nor destructor.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is the one the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with this `layout`, hence from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn the_decode_step_allocates_nothing() {
    let penalties = SamplingParams { repeat_penalty: 1.1, presence_penalty: 0.1, ..SamplingParams::default() };
    let cases = [
        ("greedy", SamplingParams::greedy()),
        ("defaults", SamplingParams { seed: Some(1), ..SamplingParams::default() }),
        (
            "no top-k",
            SamplingParams { top_k: 0, top_p: 0.5, temperature: 5.0, seed: Some(1), ..SamplingParams::default() },
        ),
        (
            "penalties over a short window",
            SamplingParams { repeat_last_n: 4, temperature: 3.0, seed: Some(1), ..penalties },
        ),
    ];
    for (name, sampling) in cases {
        let mut generator = Generator::new(Box::new(Counting::new(64, 4)), 64);
        let end_ids = Arc::from([]);
        let request = Request { prompt: &[1, 2, 3], max_tokens: None, sampling, end_ids, cancel: CancelToken::new() };
        let mut generation = generator.start(request).expect("accepted");
        let before = ALLOCATIONS.get();
        let tokens = generation.by_ref().filter(Result::is_ok).count();
        let allocated = ALLOCATIONS.get() - before;
        assert_eq!((tokens, allocated), (62, 0), "{name}: (tokens, allocations)");
    }
}

#[test]
fn the_block_manager_allocates_nothing_while_sequences_grow_and_old_blocks_go() {
    let options = KvOptions {
        blocks: 40,
        block_bytes: 1024,
        block_memory: 1024,
        packed_bytes: None,
        max_bytes: 1 << 20,
        spill_bytes: 0,
        eviction: EvictionPolicy::LRU,
        sequences: 4,
    };
    let mut manager = BlockManager::new(options).expect("room");
    for family in 0..10 {
        let seq = manager.begin(&[], family, 128).seq;
        manager.reserve(&seq, 128).expect("room");
        manager.commit(&seq, &[family as u32; 128]);
        manager.release(seq);
    }
    let seqs = [11, 12, 13].map(|salt| manager.begin(&[1], salt, 320).seq);
    let before = ALLOCATIONS.get();
    for id in 0..320 {
        for seq in &seqs {
            manager.reserve(seq, 1).expect("room");
            manager.take_actions().for_each(drop);
            manager.commit(seq, &[id]);
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(manager.stats().evictions, 30);
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(vec![END; 3]);
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
