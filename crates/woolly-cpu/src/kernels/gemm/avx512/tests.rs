//! Every form against double-precision sums over the codec's decoding and the rounded activations.

use woolly_quant::TensorType;

use super::super::{Source, unpack};
use super::*;
use crate::test_data::{blocks, noise};

struct Plain<'a>(&'a [f32], usize);

impl Source for Plain<'_> {
    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.0[row * self.1..(row + 1) * self.1]);
    }

    // Every other tile comes through the scratch.
    fn plain(&self, row: usize) -> Option<&[f32]> {
        (row / TILE).is_multiple_of(2).then(|| &self.0[row * self.1..(row + 1) * self.1])
    }
}

/// Returns the proof that there is AVX-512, or says that the test named `test` is skipped.
fn avx512(test: &str) -> Option<Avx512> {
    let simd = Avx512::new();
    if simd.is_none() {
        eprintln!("skipped: {test}: this processor has no AVX-512 VNNI");
    }
    simd
}

fn types() -> impl Iterator<Item = (TensorType, Form)> {
    TensorType::ALL.iter().filter_map(|&ty| Some((ty, unpack::form(ty)?)))
}

fn pack(simd: Avx512, tokens: &mut Tokens, x: &[f32], columns: usize, form: Form) {
    tokens.reset(x.len() / columns, columns);
    // A second form, so that their places differ.
    tokens.want(Form { group: 16, offset: 1, minimum: false });
    tokens.want(form);
    let (tiles, writer) = (tokens.tiles(), tokens.writer());
    for tile in 0..tiles {
        // SAFETY: one thread packs all tiles.
        unsafe { writer.pack(simd, &Plain(x, columns), tile, &mut Vec::new()) };
    }
}

/// The rounding of activations that [`crate::kernels::gemv`] documents: 8 bits, a scale for each 32.
fn rounded(x: &[f32]) -> Vec<f32> {
    let block = |x: &[f32]| {
        let largest = x.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        x.iter().map(|x| (x * inverse).round_ties_even() * (largest / 127.0)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(block).collect()
}

/// Noise with some groups far larger than others.
fn activations(n: usize) -> Vec<f32> {
    noise(n, 3).iter().enumerate().map(|(i, x)| x * if i / 32 % 5 == 3 { 40.0 } else { 1.0 }).collect()
}

/// Checks `found(token, row)` for all tokens and rows.
fn check(case: &str, w: &Rows<'_>, x: &[f32], found: impl Fn(usize, usize) -> f32) {
    let k = w.columns;
    let mut values = vec![0.0; w.rows * k];
    w.ty.decode(w.bytes, &mut values).unwrap();
    for (token, x) in rounded(x).chunks(k).enumerate() {
        for (r, row) in values.chunks(k).enumerate() {
            let terms = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + f64::abs(t)));
            // Minimums and weights cancel: what is rounded may be a few times what is left.
            let bound = (size * 8.0 + 1e-3) * f64::from(f32::EPSILON) * (8.0 + (k as f64).sqrt() / 4.0);
            let off = (f64::from(found(token, r)) - exact).abs();
            assert!(off <= bound, "{case}: row {r}, token {token} off by {off:e}, not {bound:e}");
        }
    }
}

#[test]
fn few_tokens_agree_with_exact_sums() {
    let Some(simd) = avx512("few_tokens_agree_with_exact_sums") else { return };
    let mut tokens = Tokens::default();
    for (ty, form) in types() {
        let block = ty.block_elements();
        for (rows, k) in [(1, block), (16, 256), (37, 768), (75, 7 * 96_usize.next_multiple_of(block))] {
            let mut bytes = vec![0; 5];
            bytes.extend(blocks(ty, k, rows, 7));
            let w = Rows { ty, bytes: &bytes[5..], columns: k, rows };
            for m in [16, 1, 8, 3] {
                let x = activations(m * k);
                pack(simd, &mut tokens, &x, k, form);
                let compute = |ranges: &[Range<usize>]| {
                    let mut out = vec![f32::NAN; m * rows];
                    let shared = SharedOut::new(&mut out);
                    ranges.iter().for_each(|r| multiply((simd, form), &w, r.clone(), &tokens, &shared, rows));
                    out
                };
                let (out, split) = (compute(&[0..0, 0..rows]), compute(&[0..rows / 3, rows / 3..rows]));
                assert!(out.iter().zip(&split).all(|(a, b)| a.to_bits() == b.to_bits()), "{ty} {m}: a split shows");
                check(&format!("{ty} {rows}x{k}, {m} tokens"), &w, &x, |token, r| out[token * rows + r]);
            }
        }
    }
}

#[test]
fn many_tokens_agree_with_exact_sums_whatever_the_strip_and_the_tiles() {
    let Some(simd) = avx512("many_tokens_agree_with_exact_sums_whatever_the_strip_and_the_tiles") else { return };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    for (ty, form) in types() {
        let (rows, k) = (131, 3 * 96_usize.next_multiple_of(ty.block_elements()));
        let bytes = blocks(ty, k, rows, 9);
        let w = Rows { ty, bytes: &bytes, columns: k, rows };
        for m in [7, 29] {
            let x = activations(m * k);
            pack(simd, &mut tokens, &x, k, form);
            let mut all = Vec::new();
            for (width, each) in [(STRIP, 5), (ROWS, 2), (3 * ROWS, 1)] {
                let mut out = vec![f32::NAN; m * rows];
                for (first, tile) in
                    (0..rows).step_by(width).flat_map(|f| (0..tokens.tiles()).step_by(each).map(move |t| (f, t)))
                {
                    let tiles = tile..tokens.tiles().min(tile + each);
                    let mut c = vec![f32::NAN; tiles.len() * TILE * width];
                    product((simd, form), &w, first, &tokens, tiles, &mut scratch, &mut c);
                    for (token, c) in (tile * TILE..m).zip(c.chunks(width)) {
                        let end = rows.min(first + width);
                        out[token * rows + first..token * rows + end].copy_from_slice(&c[..end - first]);
                    }
                }
                all.push(out);
            }
            check(&format!("{ty}, {m} tokens"), &w, &x, |token, r| all[0][token * rows + r]);
            assert!(all[0] == all[1] && all[0] == all[2], "{ty}, {m} tokens: the blocking shows");
        }
    }
}

#[test]
fn not_a_number_stays_with_its_token() {
    let Some(simd) = avx512("not_a_number_stays_with_its_token") else { return };
    let mut tokens = Tokens::default();
    for (ty, value) in
        [(TensorType::Q4_K, f32::INFINITY), (TensorType::Q8_0, f32::NAN), (TensorType::Q6_K, -f32::INFINITY)]
    {
        let (rows, form) = (20, unpack::form(ty).unwrap());
        let bytes = blocks(ty, 512, rows, 1);
        let w = Rows { ty, bytes: &bytes, columns: 512, rows };
        let mut x = noise(7 * 512, 2);
        x[512 + 300] = value;
        x[2 * 512..][..32].fill(1e-40);
        pack(simd, &mut tokens, &x, 512, form);
        let mut out = vec![0.0; 7 * rows];
        multiply((simd, form), &w, 0..rows, &tokens, &SharedOut::new(&mut out), rows);
        for (token, out) in out.chunks(rows).enumerate() {
            assert!(out.iter().all(|x| x.is_finite() == (token != 1)), "{ty}, token {token}");
        }
    }
}
