//! The products of decoding allocate nothing once the tensors are made: all scratch is sized with them.
//!
//! The first step counts like every other, and so do the threads of the pool.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use woolly_cpu::{Cpu, CpuOptions, CpuTensor, CpuWeight};
use woolly_quant::TensorType;
use woolly_tensor::{Activation, Backend, BackendError, Norm, Projection, WeightSource};

struct CountingAllocator;

/// Of all threads; hence there is one test only in this process.
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

const WIDTH: usize = 512;
const INNER: usize = 1536;
const VOCABULARY: usize = 3000;

struct Model {
    table: CpuWeight,
    norm: CpuWeight,
    gate: CpuWeight,
    up: CpuWeight,
    down: CpuWeight,
    small: CpuWeight,
    head: CpuWeight,
}

struct Buffers {
    x: CpuTensor,
    small: CpuTensor,
    feed: CpuTensor,
    last: CpuTensor,
    logits: CpuTensor,
}

fn weight(cpu: &Cpu, ty: TensorType, columns: usize, rows: usize) -> CpuWeight {
    let mut bytes = vec![0; ty.row_bytes(columns).expect("whole blocks") * rows];
    bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 31 % 0x3c) as u8);
    cpu.weight(WeightSource::from_bytes("w", ty, [columns, rows, 1], bytes)).expect("as many bytes as it takes")
}

fn step(cpu: &Cpu, model: &Model, b: &mut Buffers, ids: &[u32], out: &mut [f32]) -> Result<(), BackendError> {
    let norm = || Some(Norm { weight: &model.norm, epsilon: 1e-5 });
    cpu.embed(&model.table, ids, 1.0, &mut b.x)?;
    let small = Projection { weight: &model.small, bias: None, out: &mut b.small, accumulate: false };
    cpu.project(&b.x, norm(), &mut [small])?;
    cpu.gated(&b.x, norm(), &model.gate, &model.up, Activation::Silu, &mut b.feed)?;
    let down = Projection { weight: &model.down, bias: None, out: &mut b.x, accumulate: true };
    cpu.project(&b.feed, None, &mut [down])?;
    cpu.gather(&b.x, &[0], &mut b.last)?;
    let head = Projection { weight: &model.head, bias: None, out: &mut b.logits, accumulate: false };
    cpu.project(&b.last, norm(), &mut [head])?;
    cpu.read(&b.logits, out)
}

/// Returns the count once it stands still: threads allocate while they start, which they do in their own time.
fn settled() -> usize {
    let mut count = ALLOCATIONS.load(Ordering::SeqCst);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(20));
        match ALLOCATIONS.load(Ordering::SeqCst) {
            now if now == count => return count,
            now => count = now,
        }
    }
}

#[test]
fn decoding_does_not_allocate() {
    for rows in [1, 4, 8] {
        for ty in [TensorType::Q4_K, TensorType::Q6_K, TensorType::Q8_0, TensorType::F16] {
            let cpu = Cpu::new(CpuOptions { threads: Some(3), ..CpuOptions::default() }).unwrap();
            let model = Model {
                table: weight(&cpu, TensorType::Q8_0, WIDTH, 16),
                norm: cpu.weight(WeightSource::from_f32("norm", [WIDTH, 1, 1], &[1.0; WIDTH])).unwrap(),
                gate: weight(&cpu, ty, WIDTH, INNER),
                up: weight(&cpu, ty, WIDTH, INNER),
                down: weight(&cpu, ty, INNER, WIDTH),
                small: weight(&cpu, ty, WIDTH, 32),
                head: weight(&cpu, ty, WIDTH, VOCABULARY),
            };
            let tensor = |columns| cpu.tensor(rows, columns).unwrap();
            let mut buffers = Buffers {
                x: tensor(WIDTH),
                small: tensor(32),
                feed: tensor(INNER),
                last: cpu.tensor(1, WIDTH).unwrap(),
                logits: cpu.tensor(1, VOCABULARY).unwrap(),
            };
            let ids: Vec<u32> = (0..rows as u32).collect();
            let mut out = vec![0.0; VOCABULARY];
            let before = settled();
            for _ in 0..2 {
                step(&cpu, &model, &mut buffers, &ids, &mut out).unwrap();
            }
            assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "{ty}, {rows} rows");
            assert!(out.iter().all(|x| x.is_finite()));
        }
    }
}
