//! Whole products against `f64`, over types, odd sizes and everything that can be fused.

use std::cell::Cell;

use super::*;
use crate::kernels::gemm::Source;
use crate::test_data::{amx, blocks, noise};

struct Plain<'a>(&'a [f32], usize);

impl Source for Plain<'_> {
    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.0[row * self.1..(row + 1) * self.1]);
    }
}

fn packed(amx: Amx, x: &[f32], rows: usize, columns: usize) -> Tokens {
    let mut tokens = Tokens::default();
    // What a larger matrix left behind must not show.
    tokens.reset(rows + 40, columns);
    tokens.poison();
    tokens.reset(rows, columns);
    let tiles = tokens.tiles();
    let writer = tokens.writer();
    // SAFETY: one thread packs all tiles.
    (0..tiles).for_each(|tile| unsafe { writer.pack(amx, &Plain(x, columns), tile, &mut Vec::new()) });
    tokens
}

fn compute(amx: Amx, targets: &[Target<'_>], activation: Option<Activation>, tokens: &Tokens, threads: usize) {
    let operation = Operation::new(targets, activation, tokens, threads);
    let next = Cell::new(0);
    let claim = || (next.replace(next.get() + 1) < operation.items()).then(|| next.get() - 1);
    let mut scratch = Scratch::new();
    scratch.poison(&operation);
    operation.work(amx, &mut scratch, &claim);
}

impl Scratch {
    /// Fills everything with NaN, which must not show in any result.
    fn poison(&mut self, operation: &Operation<'_>) {
        self.prepare(operation);
        self.panels.iter_mut().for_each(|panel| panel.fill(0x7fc0));
        self.sums.fill(f32::NAN);
        self.results.fill(f32::NAN);
    }
}

/// A weight of random blocks at an odd address, and its values.
struct Matrix {
    ty: TensorType,
    bytes: Vec<u8>,
    values: Vec<f32>,
    columns: usize,
    rows: usize,
}

impl Matrix {
    fn new(ty: TensorType, columns: usize, rows: usize, seed: u64) -> Self {
        let mut bytes = vec![0];
        bytes.extend(blocks(ty, columns, rows, seed));
        let mut values = vec![0.0; rows * columns];
        ty.decode(&bytes[1..], &mut values).unwrap();
        Self { ty, bytes, values, columns, rows }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { ty: self.ty, bytes: &self.bytes[1..], columns: self.columns, rows: self.rows }
    }

    /// Returns the products with all rows of `x`, and for each the sum of the magnitudes of its terms.
    fn times(&self, x: &[f32]) -> Vec<(f64, f64)> {
        let rows =
            x.chunks_exact(self.columns).flat_map(|x| self.values.chunks_exact(self.columns).map(move |w| (w, x)));
        let terms = |(w, x): (&[f32], &[f32])| {
            let terms = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
        };
        rows.map(terms).collect()
    }
}

/// Weights and activations are rounded to bfloat16: each by at most 2⁻⁸ of itself, so that a product is off by no more
/// than 2⁻⁷ of the sum of the magnitudes. Errors are independent and 2⁻⁸ / √6 or so each: over many results, far smaller.
fn assert_close(case: &str, found: &[f32], want: &[(f64, f64)]) {
    assert_eq!(found.len(), want.len(), "{case}");
    let (mut error, mut size) = (0.0, 0.0);
    for (i, (&found, &(want, magnitude))) in found.iter().zip(want).enumerate() {
        let off = (f64::from(found) - want).abs();
        assert!(off <= magnitude / 128.0 * 1.01 + 1e-6, "{case} [{i}]: {found}, not {want}");
        (error, size) = (error + off * off, size + want * want);
    }
    // A single result may cancel out; many do not.
    if found.len() >= 64 {
        let relative = (error / size).sqrt();
        assert!(relative <= 0.003, "{case}: relative error {relative} (rms)");
    }
}

#[test]
fn products_of_every_type_are_accurate() {
    let Some(amx) = amx("products_of_every_type_are_accurate") else { return };
    for &ty in TensorType::ALL.iter().filter(|ty| !matches!(ty, TensorType::Q8_1 | TensorType::Q8_K)) {
        for (rows, blocks, m) in [(1, 1_usize, 1), (33, 3, 17), (70, 5, 33), (300, 2, 16), (40, 7, 64)] {
            let columns = if ty.block_elements() == 1 {
                blocks * 201
            } else {
                (blocks * 96).next_multiple_of(ty.block_elements())
            };
            let (weight, x) = (Matrix::new(ty, columns, rows, 5), noise(m * columns, 6));
            let mut out = vec![f32::NAN; rows * m];
            let target = Target { weight: weight.rows(), bias: None, accumulate: false, out: SharedOut::new(&mut out) };
            compute(amx, &[target], None, &packed(amx, &x, m, columns), 2);
            assert_close(&format!("{ty}: {m} x {columns} times {rows}"), &out, &weight.times(&x));
        }
    }
}

#[test]
fn several_weights_with_biases_and_sums_share_their_input() {
    let Some(amx) = amx("several_weights_with_biases_and_sums_share_their_input") else { return };
    for (m, columns) in [(9, 512), (600, 1056), (1100, 288)] {
        let x = noise(m * columns, 1);
        let tokens = packed(amx, &x, m, columns);
        let types = [(TensorType::Q8_0, 50), (TensorType::F16, 31), (TensorType::Q4_0, 70)];
        let weights = types.map(|(ty, rows)| Matrix::new(ty, columns, rows, 2));
        let bias = noise(70, 3);
        let mut outs = types.map(|(_, rows)| noise(m * rows, 4));
        let before = outs.clone();
        for threads in [1, 5] {
            outs.clone_from(&before);
            let mut targets = Vec::new();
            for (i, (weight, out)) in weights.iter().zip(&mut outs).enumerate() {
                let bias = (i != 1).then_some(&bias[..weight.rows]);
                targets.push(Target { weight: weight.rows(), bias, accumulate: i != 0, out: SharedOut::new(out) });
            }
            compute(amx, &targets, None, &tokens, threads);
            for (i, (weight, (out, before))) in weights.iter().zip(outs.iter().zip(&before)).enumerate() {
                let mut want = weight.times(&x);
                for (at, (sum, size)) in want.iter_mut().enumerate() {
                    let (bias, old) = (f64::from(bias[at % weight.rows]), f64::from(before[at]));
                    let more = if i != 1 { bias } else { 0.0 } + if i != 0 { old } else { 0.0 };
                    (*sum, *size) = (*sum + more, *size + more.abs());
                }
                assert_close(&format!("weight {i} of {m} x {columns}"), out, &want);
            }
        }
    }
}

#[test]
fn gates_and_ups_of_different_types_meet() {
    let Some(amx) = amx("gates_and_ups_of_different_types_meet") else { return };
    for (m, columns, rows) in [(16, 256, 40), (70, 768, 300)] {
        let x: Vec<f32> = noise(m * columns, 1).iter().map(|x| x * 0.1).collect();
        let gate = Matrix::new(TensorType::Q4_K, columns, rows, 2);
        let up = Matrix::new(TensorType::Q6_K, columns, rows, 3);
        let mut out = vec![f32::NAN; m * rows];
        let shared = SharedOut::new(&mut out);
        let targets = [&gate, &up].map(|w| Target { weight: w.rows(), bias: None, accumulate: false, out: shared });
        compute(amx, &targets, Some(Activation::Silu), &packed(amx, &x, m, columns), 2);
        for (i, (&found, (gate, up))) in out.iter().zip(gate.times(&x).iter().zip(up.times(&x))).enumerate() {
            let want = gate.0 / (1.0 + (-gate.0).exp()) * up.0;
            // The slope of SiLU stays below 1.1.
            let bound = (1.1 * gate.1 * (up.0.abs() + up.1 / 128.0) + gate.0.abs() * up.1) / 128.0 + 1e-5;
            assert!((f64::from(found) - want).abs() <= bound, "{m} x {columns} [{i}]: {found}, not {want}");
        }
    }
}

#[test]
fn items_cover_all_strips_and_tokens_once() {
    let Some(amx) = amx("items_cover_all_strips_and_tokens_once") else { return };
    let weight = Matrix::new(TensorType::BF16, 32, 2090, 1);
    for (m, threads) in [(1, 1), (512, 2), (513, 3), (1600, 64)] {
        let tokens = packed(amx, &noise(m * 32, 1), m, 32);
        let mut out = vec![0.0; 2090 * m];
        let target = Target { weight: weight.rows(), bias: None, accumulate: false, out: SharedOut::new(&mut out) };
        let targets = [target, target];
        let operation = Operation::new(&targets, None, &tokens, threads);
        let mut seen = vec![0; 2 * 2090_usize.div_ceil(STRIP) * m.div_ceil(STRIP)];
        for item in (0..operation.items()).map(|index| operation.item(index)) {
            assert!(item.strips.len() <= PANEL_STRIPS && item.tokens.len() <= TOKEN_STRIPS);
            for strip in item.strips {
                item.tokens.clone().for_each(|token| seen[strip * m.div_ceil(STRIP) + token] += 1);
            }
        }
        assert!(seen.iter().all(|&times| times == 1), "{m} tokens, {threads} threads");
    }
}
