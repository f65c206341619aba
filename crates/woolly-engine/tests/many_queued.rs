//! Ten thousand waiting requests: each costs little more than its prompt, and all of it is given back.

mod fake;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use fake::recalling::Recalling;
use woolly_engine::{CancelToken, Engine, EngineOptions, FinishReason, Request, SamplingParams, TokenStream};

/// Counts the bytes in use.
struct Weighing;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system allocator, which meets the contract; the counter is atomic and
// needs no allocation.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is the one the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above with this `layout`, hence from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Weighing = Weighing;

const COUNT: usize = 10_000;
const PROMPT: usize = 40;

fn submit(engine: &Engine, number: usize) -> TokenStream {
    let prompt: Vec<u32> = (0..PROMPT).map(|i| ((number * 31 + i * 7) % 40) as u32).collect();
    // Penalties have tables of the vocabulary's size: a sampler that is built too early would show.
    let sampling = SamplingParams { repeat_penalty: 1.1, ..SamplingParams::greedy() };
    let (end_ids, cancel) = (Arc::from([]), CancelToken::new());
    engine.submit(Request { prompt: &prompt, max_tokens: Some(2), sampling, end_ids, cancel }).expect("accepted")
}

#[test]
fn ten_thousand_queued_requests_hold_memory_flat() {
    let (permit, permits) = channel();
    let mut decoder = Recalling::new(64, 256, 8);
    decoder.permits = Some(permits);
    let engine = Engine::start(Box::new(decoder), EngineOptions::default()).expect("a thread");
    let before = BYTES.load(Ordering::Relaxed);
    let mut streams = Vec::with_capacity(COUNT);
    streams.extend((0..COUNT).map(|number| submit(&engine, number)));
    let queued = (BYTES.load(Ordering::Relaxed) - before) / COUNT;
    assert!(queued < PROMPT * size_of::<u32>() + 1200, "{queued} bytes a request");
    // Everyone is answered, and half of them have left before.
    streams.truncate(COUNT / 2);
    drop(permit);
    for mut stream in streams {
        assert_eq!(stream.by_ref().filter(Result::is_ok).count(), 2);
        assert_eq!(stream.finish_reason(), Some(FinishReason::Length));
    }
    let stats = engine.stats();
    assert_eq!((stats.submitted, stats.failed), (COUNT as u64, 0));
    engine.shutdown();
    let after = BYTES.load(Ordering::Relaxed);
    assert!(after < before + 4096, "{before} bytes before, {after} after");
}
