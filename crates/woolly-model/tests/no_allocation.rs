//! A forward pass allocates nothing: everything this crate does around the backend works in buffers made beforehand.
//!
//! The backend here computes nothing, so that every allocation counted is this crate's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use woolly_gguf::{GGUFLoader, GGUFWriter, SharedBytes, Value};
use woolly_model::{Decoder, Model, Runner, RunnerOptions, Step};
use woolly_quant::TensorType;
use woolly_tensor::{
    Activation, Attention, Backend, BackendError, Batch, CacheSpec, CacheType, Experts, Norm, Projection, Sequence,
    WeightSource,
};

struct CountingAllocator;

/// Of all threads, since a backend has its own; hence there is one test only in this process.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system allocator, which meets the contract; counting touches only a
// number in static memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

/// Accepts everything and computes nothing.
struct Idle;

type Done = Result<(), BackendError>;

impl Backend for Idle {
    type Tensor = ();
    type Weight = ();
    type Cache = ();

    fn describe(&self) -> String {
        "idle".to_owned()
    }
    fn tensor(&self, _: usize, _: usize) -> Done {
        Ok(())
    }
    fn resize(&self, (): &mut (), _: usize) -> Done {
        Ok(())
    }
    fn write(&self, (): &mut (), _: &[f32]) -> Done {
        Ok(())
    }
    fn read(&self, (): &(), out: &mut [f32]) -> Done {
        out.fill(0.0);
        Ok(())
    }
    fn weight(&self, _: WeightSource) -> Done {
        Ok(())
    }
    fn cache(&self, _: &CacheSpec) -> Done {
        Ok(())
    }
    fn block_bytes(&self, (): &()) -> usize {
        0
    }
    fn copy_block(&self, (): &mut (), _: u32, _: u32) -> Done {
        Ok(())
    }
    fn save_block(&self, (): &(), _: u32, _: &mut [u8]) -> Done {
        Ok(())
    }
    fn keep_tokens(&self, (): &(), _: usize, _: &mut [u8]) -> Done {
        Ok(())
    }
    fn load_block(&self, (): &mut (), _: u32, _: &[u8]) -> Done {
        Ok(())
    }
    fn release_blocks(&self, (): &mut (), _: &[u32]) -> Done {
        Ok(())
    }
    fn embed(&self, (): &(), _: &[u32], _: f32, (): &mut ()) -> Done {
        Ok(())
    }
    fn norm(&self, (): &(), _: Norm<'_, Self>, (): &mut ()) -> Done {
        Ok(())
    }
    fn project(&self, (): &(), _: Option<Norm<'_, Self>>, _: &mut [Projection<'_, Self>]) -> Done {
        Ok(())
    }
    fn gated(&self, (): &(), _: Option<Norm<'_, Self>>, (): &(), (): &(), _: Activation, (): &mut ()) -> Done {
        Ok(())
    }
    fn attention(&self, _: Attention<'_, Self>, (): &mut (), (): &mut ()) -> Done {
        Ok(())
    }
    fn experts(&self, (): &(), _: Option<Norm<'_, Self>>, _: &Experts<'_, Self>, (): &mut ()) -> Done {
        Ok(())
    }
    fn gather(&self, (): &(), _: &[u32], (): &mut ()) -> Done {
        Ok(())
    }
}

/// A llama of one layer with the given experts (0: dense), all weights 0.
fn model(experts: u64) -> GGUFLoader {
    let mut writer = GGUFWriter::new();
    writer.set("general.architecture", "llama").set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    for (key, value) in [("block_count", 1), ("context_length", 64), ("embedding_length", 8), ("expert_count", experts)]
    {
        writer.set(&format!("llama.{key}"), Value::from(value));
    }
    for (key, value) in [("feed_forward_length", 16u32), ("attention.head_count", 2), ("expert_used_count", 1)] {
        writer.set(&format!("llama.{key}"), value);
    }
    let mut tensor = |name: &str, dims: &[u64]| {
        writer.tensor(name, dims, TensorType::F32, vec![0; 4 * dims.iter().product::<u64>() as usize]);
    };
    tensor("token_embd.weight", &[8, 20]);
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        tensor(&format!("{name}.weight"), &[8]);
    }
    for name in ["q", "k", "v", "output"] {
        tensor(&format!("blk.0.attn_{name}.weight"), &[8, 8]);
    }
    if experts > 0 {
        tensor("blk.0.ffn_gate_inp.weight", &[8, experts]);
    }
    for (name, dims) in [("gate", [8, 16]), ("up", [8, 16]), ("down", [16, 8])] {
        match experts {
            0 => tensor(&format!("blk.0.ffn_{name}.weight"), &dims),
            _ => tensor(&format!("blk.0.ffn_{name}_exps.weight"), &[dims[0], dims[1], experts]),
        }
    }
    let bytes = writer.to_bytes().expect("the model can be written");
    GGUFLoader::from_bytes(SharedBytes::from_vec(bytes)).expect("the file is well-formed")
}

#[test]
fn a_step_allocates_nothing() {
    for experts in [0, 3] {
        check(&Arc::new(Idle), experts, 0);
    }
}

/// Counts the allocations of a long and of a short step after `warm_up` rounds of both.
fn check<B: Backend>(backend: &Arc<B>, experts: u64, warm_up: usize) {
    let model = Model::load(&model(experts), backend.as_ref(), &mut |_| ()).expect("the model is valid");
    let options = RunnerOptions { context: 96, max_rows: 40, max_outputs: 2, storage: CacheType::F32 };
    let mut runner = Runner::new(Arc::clone(backend), Arc::new(model), options).expect("the options are valid");
    let mut logits = [f32::NAN; 40];
    let (ids, prefix, other) = ([7; 40], [2, 0], [1]);
    let prefill = [Sequence { rows: 0..40, start: 0, blocks: &prefix }];
    let decode =
        [Sequence { rows: 0..1, start: 40, blocks: &prefix }, Sequence { rows: 1..2, start: 9, blocks: &other }];
    let steps = [
        Step { ids: &ids, batch: Batch { sequences: &prefill }, outputs: &[] },
        Step { ids: &ids[..2], batch: Batch { sequences: &decode }, outputs: &[0, 1] },
    ];
    let name = backend.describe();
    for round in 0..=warm_up {
        for step in steps {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let outcome = runner.forward(step, &mut logits[..20 * step.outputs.len()]);
            let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
            outcome.expect("the step is valid");
            assert!(
                round < warm_up || allocated == 0,
                "{name}, {experts} experts, {} rows: {allocated}",
                step.ids.len()
            );
        }
    }
    assert_eq!(logits, [0.0; 40], "{name}: the logits of weights that are all 0");
}
