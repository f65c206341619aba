//! Attention of one layer over a batch: prepare and store the new tokens, pass over the cache, merge.
//!
//! How the work is cut depends on the sequences alone, never on the threads, so results do not either. A sequence of a
//! few new tokens is cut along its context, one of many along its rows.

use std::ops::Range;

use woolly_tensor::{Attention, BLOCK_TOKENS, BackendError, Batch, CacheType, Rope, Sequence};

use super::linear::{at_least, each_item};
use super::{Cpu, Lane, MANY_ROWS, NormVector, norm_vector};
use crate::buffer::AlignedVec;
use crate::cache::{CpuCache, Layout};
#[cfg(target_arch = "x86_64")]
use crate::isa::Amx;
use crate::isa::Level;
use crate::kernels::attention::{self as kernel, Part, QUERIES, Span, State, Upcoming};
use crate::kernels::disjoint::Disjoint;
use crate::kernels::storage::store;
use crate::kernels::{norm, rope};
use crate::tensor::CpuTensor;

/// Least positions of one item when a sequence is cut along its context, and most items of one head.
const SPAN: usize = 256;
const PARTS: usize = 16;

/// Lists of work and partial results; they grow to the largest batch and context seen.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    groups: Vec<Group>,
    written: Vec<u32>,
    items: Vec<Item>,
    /// Of each partial item: `[QUERIES][2 + value_length]`, maximum and sum first.
    parts: AlignedVec<f32>,
}

/// New tokens that go into one block of the cache.
#[derive(Clone, Debug)]
struct Group {
    rows: Range<usize>,
    block: u32,
    /// Slot of the first row.
    slot: usize,
}

/// Query vectors of one key-value head and the positions to attend them to.
#[derive(Clone, Debug)]
struct Item {
    sequence: usize,
    head: usize,
    /// Vectors, counted over the rows of the sequence and the heads of the group.
    vectors: Range<usize>,
    positions: Range<usize>,
    /// Index of this item's partial result and how many follow it for the same vectors, itself included: on the first
    /// of them; none when the item is the only one.
    partial: Option<usize>,
    parts: usize,
}

pub(super) fn attend(
    cpu: &Cpu,
    args: Attention<'_, Cpu>,
    cache: &mut CpuCache,
    out: &mut CpuTensor,
) -> Result<(), BackendError> {
    check(&args, cache, out)?;
    let length = args.shape.key_length;
    let norms = [norm_vector("attention", args.q_norm, length)?, norm_vector("attention", args.k_norm, length)?];
    out.set_rows("attention", args.batch.rows())?;
    run(cpu, &mut cpu.shared().attention, args, norms, cache, out);
    Ok(())
}

fn check(args: &Attention<'_, Cpu>, cache: &CpuCache, out: &CpuTensor) -> Result<(), BackendError> {
    let (op, shape, rows) = ("attention", args.shape, args.batch.rows());
    let groups = shape.kv_heads.max(1);
    let sizes = [
        ("columns of q", args.q.columns(), shape.heads.saturating_mul(shape.key_length)),
        ("columns of k", args.k.columns(), shape.kv_heads.saturating_mul(shape.key_length)),
        ("columns of v", args.v.columns(), shape.kv_heads.saturating_mul(shape.value_length)),
        ("columns of the output", out.columns(), shape.heads.saturating_mul(shape.value_length)),
        ("rows of q", args.q.rows(), rows),
        ("rows of k", args.k.rows(), rows),
        ("rows of v", args.v.rows(), rows),
        ("key-value heads of the cache", cache.spec.kv_heads, shape.kv_heads),
        ("key length of the cache", cache.spec.key_length, shape.key_length),
        ("value length of the cache", cache.spec.value_length, shape.value_length),
        ("key-value heads", shape.kv_heads, groups),
        ("query heads beyond a multiple of the key-value heads", shape.heads % groups, 0),
    ];
    for (what, found, expected) in sizes {
        BackendError::expect_size(op, what, found, expected)?;
    }
    if let Some(rope) = args.rope {
        BackendError::expect_size(op, "rotated elements", rope.dims.min(shape.key_length) & !1, rope.dims)?;
        BackendError::expect_size(op, "rotation angles", rope.angles.len(), rows * rope.dims)?;
    }
    if let Some(window) = shape.window {
        BackendError::expect_size(op, "window", window, window.max(1))?;
    }
    if args.layer >= cache.spec.layers {
        return Err(BackendError::OutOfRange { op, what: "layer", index: args.layer, len: cache.spec.layers });
    }
    check_sequences(&args.batch, cache.spec.blocks)
}

fn check_sequences(batch: &Batch<'_>, blocks: usize) -> Result<(), BackendError> {
    let op = "attention";
    let mut next = 0;
    for sequence in batch.sequences {
        BackendError::expect_size(op, "first row of a sequence", sequence.rows.start, next)?;
        next = sequence.rows.end.max(next);
        BackendError::expect_size(op, "last row of a sequence", sequence.rows.end, next)?;
        let len = sequence.blocks.len().saturating_mul(BLOCK_TOKENS);
        let end = sequence.start.saturating_add(sequence.rows.len());
        if end > len {
            return Err(BackendError::OutOfRange { op, what: "position", index: end - 1, len });
        }
        BackendError::expect_blocks(op, sequence.blocks, blocks)?;
    }
    Ok(())
}

/// Runs the three phases; everything has been checked.
fn run(
    cpu: &Cpu,
    scratch: &mut Scratch,
    args: Attention<'_, Cpu>,
    norms: [Option<NormVector<'_>>; 2],
    cache: &mut CpuCache,
    out: &mut CpuTensor,
) {
    let layout = cache.layout();
    let Attention { layer, q, k, v, rope, shape, batch, .. } = args;
    let (kv_heads, group) = (shape.kv_heads, shape.heads / shape.kv_heads);
    list_groups(&batch, &mut scratch.groups);
    let tokens = NewTokens {
        level: cpu.level,
        layer,
        kv_heads,
        layout,
        norms,
        rope,
        q_columns: q.columns(),
        q: Disjoint::new(q.values_mut()),
        k: Disjoint::new(k.values_mut()),
        v,
        cache: Disjoint::new(cache.memory.bytes_mut()),
    };
    tokens.store_all(cpu, &scratch.groups, &mut scratch.written);

    let cut = Cut { kv_heads, group, window: shape.window, many: queries_of_many(cpu.level, layout.storage) };
    list_items(&batch, cut, &mut scratch.items);
    let partial = scratch.items.iter().filter(|item| item.partial.is_some()).count();
    let part_len = 2 + shape.value_length;
    let pass = Pass {
        level: cpu.level,
        layer,
        layout,
        group,
        scale: shape.scale,
        softcap: shape.softcap,
        window: shape.window,
        batch,
        q,
        cache: cache.memory.bytes(),
        out_columns: out.columns(),
        out: Disjoint::new(out.values_mut()),
        parts: Disjoint::new(at_least(&mut scratch.parts, partial * QUERIES * part_len)),
    };
    let items = &scratch.items;
    each_run(cpu, items.len(), &|lane, index, then| pass.attend(lane, &items[index], then.map(|then| &items[then])));
    if partial > 0 {
        each_item(cpu, items.len(), &|_, index| pass.merge(&items[index]));
    }
}

/// Calls `each(lane, item, following item)` for all items; a thread takes several in a row, so that it knows the following
/// one, but few enough that all threads end together.
fn each_run(cpu: &Cpu, n: usize, each: &(dyn Fn(&mut Lane, usize, Option<usize>) + Sync)) {
    let run = (n / (8 * cpu.threads())).max(1);
    each_item(cpu, n.div_ceil(run), &|lane, index| {
        let items = index * run..n.min((index + 1) * run);
        for item in items.clone() {
            each(lane, item, (item + 1 < items.end).then_some(item + 1));
        }
    });
}

/// Lists the new tokens block by block.
fn list_groups(batch: &Batch<'_>, groups: &mut Vec<Group>) {
    groups.clear();
    for sequence in batch.sequences {
        let mut row = sequence.rows.start;
        while row < sequence.rows.end {
            let position = sequence.start + row - sequence.rows.start;
            let slot = position % BLOCK_TOKENS;
            let end = sequence.rows.end.min(row + BLOCK_TOKENS - slot);
            groups.push(Group { rows: row..end, block: sequence.blocks[position / BLOCK_TOKENS], slot });
            row = end;
        }
    }
}

/// The new tokens of a step on their way into the cache.
struct NewTokens<'a> {
    level: Level,
    layer: usize,
    kv_heads: usize,
    layout: Layout,
    /// Of queries and keys.
    norms: [Option<NormVector<'a>>; 2],
    rope: Option<Rope<'a>>,
    q_columns: usize,
    q: Disjoint<'a, f32>,
    k: Disjoint<'a, f32>,
    v: &'a CpuTensor,
    cache: Disjoint<'a, u8>,
}

impl NewTokens<'_> {
    /// Prepares and stores all groups; on several threads when there are many, each with a block of its own.
    fn store_all(&self, cpu: &Cpu, groups: &[Group], written: &mut Vec<u32>) {
        written.clear();
        written.extend(groups.iter().map(|group| group.block));
        written.sort_unstable();
        // Sequences that write to the same block would race; a caller that wants this gets the last one's token.
        let distinct = written.is_sorted_by(|a, b| a < b);
        let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
        if rows <= MANY_ROWS || !distinct {
            // SAFETY: one thread, one group after the other.
            groups.iter().for_each(|group| unsafe { self.store(group) });
        } else {
            // SAFETY: groups have different rows and different blocks, and each is one thread's.
            each_item(cpu, groups.len(), &|_, index| unsafe { self.store(&groups[index]) });
        }
    }

    /// Normalises and rotates the queries and keys of a group and writes its keys and values.
    ///
    /// # Safety
    /// No other thread accesses the group's rows or its block.
    unsafe fn store(&self, group: &Group) {
        let layout = &self.layout;
        let k_columns = self.kv_heads * layout.key_length;
        for (offset, row) in group.rows.clone().enumerate() {
            // SAFETY: the group's rows are this thread's.
            let (q, k) = unsafe {
                let q = self.q.slice(row * self.q_columns..(row + 1) * self.q_columns);
                (q, self.k.slice(row * k_columns..(row + 1) * k_columns))
            };
            self.prepare(q, self.norms[0], row);
            self.prepare(k, self.norms[1], row);
            let v = self.v.row(row);
            for head in 0..self.kv_heads {
                let range = layout.of_head(self.layer, head, group.block as usize);
                // SAFETY: the group's block is this thread's.
                let block = unsafe { self.cache.slice(range) };
                let key = &k[head * layout.key_length..][..layout.key_length];
                let value = &v[head * layout.value_length..][..layout.value_length];
                store(layout, block, group.slot + offset, key, value);
            }
        }
    }

    fn prepare(&self, heads: &mut [f32], norm: Option<NormVector<'_>>, row: usize) {
        let length = self.layout.key_length;
        if let Some((weight, epsilon)) = norm {
            for head in heads.chunks_exact_mut(length.max(1)) {
                norm::rms_norm_in_place(self.level, head, weight, epsilon);
            }
        }
        if let Some(Rope { style, dims, angles }) = self.rope {
            rope::rotate(self.level, heads, length, style, &angles[row * dims..(row + 1) * dims]);
        }
    }
}

/// How work is cut into items.
#[derive(Clone, Copy)]
struct Cut {
    kv_heads: usize,
    group: usize,
    window: Option<usize>,
    /// Most vectors of an item of a sequence of many rows.
    many: usize,
}

/// Returns how many vectors of a sequence of many rows the kernel of `level` takes at once.
fn queries_of_many(level: Level, storage: CacheType) -> usize {
    #[cfg(target_arch = "x86_64")]
    if on_tiles(level, storage) {
        return kernel::amx::QUERIES;
    }
    let _ = (level, storage);
    QUERIES
}

/// Whether many rows are attended on tiles, which round weights and values to bfloat16: who stores single precision wants
/// its precision.
#[cfg(target_arch = "x86_64")]
fn on_tiles(level: Level, storage: CacheType) -> bool {
    level >= Level::Amx && storage != CacheType::F32
}

/// Lists what is to be attended to what. Sequences of many rows come last row first: late rows have most to read.
fn list_items(batch: &Batch<'_>, cut: Cut, items: &mut Vec<Item>) {
    let Cut { kv_heads, group, window, many } = cut;
    items.clear();
    let mut partial = 0;
    for (index, sequence) in batch.sequences.iter().enumerate() {
        let vectors = sequence.rows.len() * group;
        let (span, most) = match sequence.rows.len() {
            0..=MANY_ROWS => (sequence.end().div_ceil(PARTS).next_multiple_of(SPAN), QUERIES),
            _ => (usize::MAX, many),
        };
        for start in (0..vectors).step_by(most).rev() {
            let vectors = start..vectors.min(start + most);
            let seen = union(sequence, &vectors, group, window);
            let first = seen.start / span * span;
            let parts = (seen.end - first).div_ceil(span);
            // The heads of a part lie side by side in the cache: one after the other, they share entries of page tables.
            for part in 0..parts {
                let from = first + part * span;
                let positions = from.max(seen.start)..seen.end.min(from.saturating_add(span));
                for head in 0..kv_heads {
                    let place = (parts > 1).then_some(partial + head * parts + part);
                    let parts = if part == 0 { parts } else { 0 };
                    let (vectors, positions) = (vectors.clone(), positions.clone());
                    items.push(Item { sequence: index, head, vectors, positions, partial: place, parts });
                }
            }
            partial += if parts > 1 { kv_heads * parts } else { 0 };
        }
    }
}

/// Returns the positions that any of the vectors sees.
fn union(sequence: &Sequence<'_>, vectors: &Range<usize>, group: usize, window: Option<usize>) -> Range<usize> {
    let first = visible(sequence.start + vectors.start / group, window);
    let last = visible(sequence.start + (vectors.end - 1) / group, window);
    first.start..last.end
}

/// Returns the positions that the token at `position` sees.
fn visible(position: usize, window: Option<usize>) -> Range<usize> {
    window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
}

/// One pass of a layer's new queries over its cache.
struct Pass<'a> {
    level: Level,
    layer: usize,
    layout: Layout,
    group: usize,
    scale: f32,
    softcap: Option<f32>,
    window: Option<usize>,
    batch: Batch<'a>,
    q: &'a CpuTensor,
    cache: &'a [u8],
    out_columns: usize,
    out: Disjoint<'a, f32>,
    parts: Disjoint<'a, f32>,
}

impl Pass<'_> {
    fn attend(&self, lane: &mut Lane, item: &Item, then: Option<&Item>) {
        let sequence = &self.batch.sequences[item.sequence];
        let (length, n) = (self.layout.key_length, item.vectors.len());
        let Lane { queries, seen, .. } = lane;
        seen.clear();
        let queries = at_least(queries, n * length);
        for (i, vector) in item.vectors.clone().enumerate() {
            let (offset, head) = (vector / self.group, item.head * self.group + vector % self.group);
            let from = &self.q.row(sequence.rows.start + offset)[head * length..][..length];
            queries[i * length..(i + 1) * length].copy_from_slice(from);
            seen.push(visible(sequence.start + offset, self.window));
        }
        let span = Span {
            layout: self.layout,
            cache: self.cache,
            head: self.layout.of_head(self.layer, item.head, 0).start,
            blocks: sequence.blocks,
            positions: item.positions.clone(),
            queries,
            visible: seen,
            scale: self.scale,
            softcap: self.softcap,
            then: then.map(|item| Upcoming {
                head: self.layout.of_head(self.layer, item.head, 0).start,
                blocks: self.batch.sequences[item.sequence].blocks,
                position: item.positions.start,
            }),
        };
        #[cfg(target_arch = "x86_64")]
        if on_tiles(self.level, self.layout.storage)
            && sequence.rows.len() > MANY_ROWS
            && let Some(amx) = Amx::new()
        {
            kernel::amx::attend(amx, &span, &mut lane.tiled_attention);
            for (i, vector) in item.vectors.clone().enumerate() {
                // SAFETY: sequences of many rows are not cut along their context: this item alone has these vectors.
                lane.tiled_attention.finish(i, unsafe { self.output(item, vector) });
            }
            return;
        }
        kernel::attend(self.level, &span, &mut lane.attention);
        self.keep(item, &lane.attention);
    }

    /// Writes the results of an item, or its partial ones to their place.
    fn keep(&self, item: &Item, state: &State) {
        for (i, vector) in item.vectors.clone().enumerate() {
            let Some(place) = item.partial else {
                // SAFETY: without parts, this item is the only one with these vectors.
                kernel::finish(&self.layout, state, i, unsafe { self.output(item, vector) });
                continue;
            };
            // SAFETY: the place is this item's.
            let part = unsafe { self.part(place, i) };
            (part[0], part[1]) = (state.maxima[i], state.sums[i]);
            part[2..].copy_from_slice(&state.values[i * self.layout.columns..][..self.layout.value_length]);
        }
    }

    /// Merges the parts of the vectors of an item that is the first of several.
    fn merge(&self, item: &Item) {
        let Some(place) = item.partial.filter(|_| item.parts > 0) else { return };
        for (i, vector) in item.vectors.clone().enumerate() {
            let parts = (place..place + item.parts).map(|place| {
                // SAFETY: the passes that wrote the parts are over; they are only read now.
                let part: &[f32] = unsafe { self.part(place, i) };
                Part { maximum: part[0], sum: part[1], values: &part[2..] }
            });
            // SAFETY: only the first of the parts of these vectors gets here.
            kernel::merge(parts, unsafe { self.output(item, vector) });
        }
    }

    /// Returns the output of one query vector of an item.
    ///
    /// # Safety
    /// No other thread asks for it at the same time.
    #[allow(clippy::mut_from_ref, reason = "hands out parts of a shared slice; the contract excludes overlap")]
    unsafe fn output(&self, item: &Item, vector: usize) -> &mut [f32] {
        let row = self.batch.sequences[item.sequence].rows.start + vector / self.group;
        let head = item.head * self.group + vector % self.group;
        let start = row * self.out_columns + head * self.layout.value_length;
        // SAFETY: outputs of different vectors do not overlap.
        unsafe { self.out.slice(start..start + self.layout.value_length) }
    }

    /// Returns the partial result of a vector of the item with this place.
    ///
    /// # Safety
    /// No other thread writes to it at the same time.
    #[allow(clippy::mut_from_ref, reason = "hands out parts of a shared slice; the contract excludes overlap")]
    unsafe fn part(&self, place: usize, vector: usize) -> &mut [f32] {
        let len = 2 + self.layout.value_length;
        let start = (place * QUERIES + vector) * len;
        // SAFETY: parts do not overlap.
        unsafe { self.parts.slice(start..start + len) }
    }
}
