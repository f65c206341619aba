//! One head's attention against the definition in double precision, on the keys and values that the cache holds.
//!
//! The bounds are those of the arithmetic alone: what storing rounds is read back first.

use std::ops::Range;

use woolly_tensor::{BLOCK_TOKENS, CacheSpec, CacheType};

use super::*;
use crate::buffer::AlignedVec;
use crate::kernels::storage::{store, tests::read};
use crate::test_data::{levels, noise};

/// A head of a sequence in scattered blocks of a cache.
struct Head {
    layout: Layout,
    cache: AlignedVec<u8>,
    blocks: Vec<u32>,
    /// What the cache holds, token by token.
    tokens: Vec<[Vec<f32>; 2]>,
}

impl Head {
    /// Stores `tokens` tokens; what lies beyond is NaN, or the largest numbers and scales of NaN.
    fn new(storage: CacheType, key_length: usize, value_length: usize, tokens: usize) -> Self {
        let count = tokens.div_ceil(BLOCK_TOKENS);
        let spec = CacheSpec { layers: 1, kv_heads: 1, key_length, value_length, blocks: count, storage };
        let layout = Layout::new(&spec).unwrap();
        let blocks: Vec<u32> = (0..count as u32).rev().collect();
        let mut cache = AlignedVec::zeroed(count * layout.block);
        let mut head = Vec::new();
        for token in 0..count * BLOCK_TOKENS {
            let part = &mut cache[blocks[token / BLOCK_TOKENS] as usize * layout.block..][..layout.head];
            let slot = token % BLOCK_TOKENS;
            if token >= tokens {
                store(&layout, part, slot, &vec![f32::MAX; key_length], &vec![f32::NAN; value_length]);
                if storage == CacheType::Q8 {
                    part[layout.value_scales + 2 * slot..][..2].fill(0xff);
                }
                continue;
            }
            // Keys and values of very different sizes, as scales must tell.
            let size = [1.0, 0.05, 3.0][token % 3];
            let random = |n, seed| noise(n, seed).iter().map(|x| x * size).collect::<Vec<_>>();
            let (key, value) = (random(key_length, token as u64 + 1), random(value_length, token as u64 + 7001));
            store(&layout, part, slot, &key, &value);
            head.push(read(Level::Scalar, &layout, part, slot));
        }
        Self { layout, cache, blocks, tokens: head }
    }

    fn span<'a>(&'a self, positions: Range<usize>, queries: &'a [f32], visible: &'a [Range<usize>]) -> Span<'a> {
        Span {
            layout: self.layout,
            cache: &self.cache,
            head: 0,
            blocks: &self.blocks,
            positions,
            queries,
            visible,
            scale: 0.5,
            softcap: None,
            then: Some(Upcoming { head: 0, blocks: &self.blocks, position: 0 }),
        }
    }

    /// Returns what one query gets, and the largest magnitude of the values it sees.
    fn definition(&self, query: &[f32], seen: Range<usize>, span: &Span<'_>) -> (Vec<f64>, f64) {
        let scores = self.tokens[seen.clone()].iter().map(|[key, _]| {
            let product: f64 = key.iter().zip(query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum();
            let score = product * f64::from(span.scale);
            span.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        });
        let scores: Vec<f64> = scores.collect();
        let most = scores.iter().fold(f64::MIN, |m, &x| m.max(x));
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut out = vec![0.0; self.layout.value_length];
        let mut largest = 0.0_f64;
        for ([_, value], weight) in self.tokens[seen].iter().zip(&weights) {
            for (out, &x) in out.iter_mut().zip(value) {
                *out += weight / total * f64::from(x);
                largest = largest.max(f64::from(x).abs());
            }
        }
        (out, largest)
    }
}

/// Returns how far a score may be off where a query is rounded to 1/32767 of its largest element, to be multiplied by bytes.
fn rounding(head: &Head, query: &[f32], span: &Span<'_>) -> f64 {
    if matches!(head.layout.storage, CacheType::F32 | CacheType::F16) {
        return 0.0;
    }
    let step = query.iter().fold(0.0_f32, |m, q| m.max(q.abs())) / 32767.0;
    let keys = head.tokens.iter().map(|[key, _]| key.iter().map(|k| k.abs()).sum::<f32>());
    f64::from(span.scale * step / 2.0 * keys.fold(0.0, f32::max))
}

/// Checks every query of a span at every level.
fn check_span(case: &str, head: &Head, span: &Span<'_>) {
    let length = head.layout.key_length;
    let expected: Vec<_> = (span.queries.chunks_exact(length).zip(span.visible))
        .map(|(query, seen)| {
            let seen = seen.start.max(span.positions.start)..seen.end.min(span.positions.end);
            head.definition(query, seen, span)
        })
        .collect();
    for level in levels() {
        let mut state = State::new(head.layout.columns);
        attend(level, span, &mut state);
        for (n, (expected, largest)) in expected.iter().enumerate() {
            let mut out = vec![f32::NAN; head.layout.value_length];
            finish(&head.layout, &state, n, &mut out);
            // Exponentials and sums in single precision; weights to 1/65535 of the largest where they become bytes. A score
            // that is off moves all weights by that share, some up, some down.
            let query = &span.queries[n * length..(n + 1) * length];
            let bound = (4e-5 + 2.0 * rounding(head, query, span)) * largest;
            for (i, (found, expected)) in out.iter().zip(expected).enumerate() {
                let off = (f64::from(*found) - expected).abs();
                assert!(off <= bound, "{case} {level:?} query {n} [{i}]: {found}, not {expected} ± {bound}");
            }
        }
    }
}

#[test]
fn a_head_attends_as_defined_for_all_types_sizes_and_numbers_of_queries() {
    let sizes = [(64, 64), (5, 9), (22, 16), (80, 48), (128, 33), (16, 80)];
    for (storage, (key, value)) in CacheType::ALL.into_iter().flat_map(|ty| sizes.map(|size| (ty, size))) {
        for (tokens, n) in [(1, 1), (31, 3), (130, 8), (260, 5), (300, 17)] {
            let head = Head::new(storage, key, value, tokens);
            let queries = noise(n * key, 5);
            // The last queries are those of the last tokens.
            let visible: Vec<_> = (0..n).map(|i| 0..tokens - (n - 1 - i).min(tokens - 1)).collect();
            let case = format!("{storage} {key}/{value}, {tokens} tokens, {n} queries");
            let span = head.span(0..tokens, &queries, &visible);
            check_span(&case, &head, &span);
            let capped = Span { softcap: Some(0.7), ..span };
            check_span(&format!("{case}, capped"), &head, &capped);
        }
    }
}

#[test]
fn windows_and_parts_of_a_context_hide_the_rest() {
    for storage in CacheType::ALL {
        let head = Head::new(storage, 32, 32, 290);
        let queries = noise(9 * 32, 6);
        for positions in [0..290_usize, 37..205, 130..131, 255..290] {
            let start = |i: usize| positions.start.max(positions.end.saturating_sub(50 + i));
            let visible: Vec<_> = (0..9).map(|i| start(i)..positions.end - (i % 3).min(positions.len() - 1)).collect();
            check_span(&format!("{storage} {positions:?}"), &head, &head.span(positions.clone(), &queries, &visible));
        }
    }
}

#[test]
fn a_query_that_sees_nothing_leaves_nothing() {
    for (storage, level) in CacheType::ALL.into_iter().flat_map(|ty| levels().into_iter().map(move |level| (ty, level)))
    {
        let head = Head::new(storage, 16, 16, 200);
        let queries = noise(2 * 16, 6);
        // The second query sees nothing of the last chunk, after it has seen something of the first.
        let visible = [0..200, 0..20];
        let mut state = State::new(16);
        attend(level, &head.span(0..200, &queries, &visible), &mut state);
        let whole = [1, 0].map(|i| state.values[i * 16..(i + 1) * 16].to_vec());
        attend(level, &head.span(0..32, &queries, &visible), &mut state);
        assert_eq!(state.values[16..32], whole[0], "{storage} {level:?}");
        attend(level, &head.span(64..96, &queries, &[0..200, 0..200]), &mut state);
        attend(level, &head.span(64..96, &queries, &visible), &mut state);
        assert_eq!((state.maxima[1], state.sums[1]), (f32::NEG_INFINITY, 0.0), "{storage} {level:?}");
        assert!(state.values[16..32].iter().all(|&x| x == 0.0), "{storage} {level:?}");
    }
}

#[test]
fn what_is_no_number_shows() {
    for (storage, level) in CacheType::ALL.into_iter().flat_map(|ty| levels().into_iter().map(move |level| (ty, level)))
    {
        let head = Head::new(storage, 16, 16, 40);
        let mut queries = noise(2 * 16, 6);
        queries[21] = f32::NAN;
        let mut state = State::new(16);
        attend(level, &head.span(0..40, &queries, &[0..40, 0..40]), &mut state);
        let mut out = [[0.0; 16]; 2];
        (0..2).for_each(|i| finish(&head.layout, &state, i, &mut out[i]));
        assert!(out[0].iter().all(|x| x.is_finite()), "{storage} {level:?}: {out:?}");
        assert!(out[1].iter().all(|x| x.is_nan()), "{storage} {level:?}: {out:?}");
    }
}
