//! Every form against double-precision sums over the codec's decoding and the rounded activations.

use woolly_quant::TensorType;
use woolly_quant::half::{bf16_to_f32, f32_to_bf16};

use super::super::{Source, unpack};
use super::*;
use crate::kernels::rounding::Scales;
use crate::kernels::unpacked::{STEP, Unpacked, layout, to_bytes};
use crate::test_data::{blocks, noise, rounded, rounded_by};

struct Matrix<'a> {
    values: &'a [f32],
    columns: usize,
    /// Otherwise rows come through the scratch.
    plain: bool,
}

impl Source for Matrix<'_> {
    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.columns..(row + 1) * self.columns]);
    }

    fn plain(&self, row: usize) -> Option<&[f32]> {
        self.plain.then(|| &self.values[row * self.columns..(row + 1) * self.columns])
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

fn types() -> impl Iterator<Item = (TensorType, How)> {
    TensorType::ALL.iter().filter_map(|&ty| Some((ty, How::Bytes(unpack::form(ty)?))))
}

fn pack(simd: Avx512, tokens: &mut Tokens, x: &[f32], columns: usize, how: How) {
    tokens.reset(x.len() / columns, columns);
    let scales = match how {
        How::Bytes(form) => form.scales,
        How::Pairs(_) => Scales::Own,
    };
    // A second form, so that their places differ.
    tokens.want(How::Bytes(Form { group: 16, offset: 1, minimum: false, scales }));
    tokens.want(how);
    let (tiles, writer) = (tokens.tiles(), tokens.writer());
    for tile in 0..tiles {
        let source = Matrix { values: x, columns, plain: tile.is_multiple_of(2) };
        // SAFETY: one thread packs all tiles.
        unsafe { writer.pack(simd, &source, tile, &mut Vec::new()) };
    }
}

/// Noise with some groups far larger than others.
fn activations(n: usize) -> Vec<f32> {
    noise(n, 3).iter().enumerate().map(|(i, x)| x * if i / 32 % 5 == 3 { 40.0 } else { 1.0 }).collect()
}

fn decoded(w: &Rows<'_>) -> Vec<f32> {
    let mut values = vec![0.0; w.rows * w.columns];
    w.ty.decode(w.bytes, &mut values).unwrap();
    values
}

/// Checks `found(token, row)` for all tokens and rows: products of `values` with rounded activations.
fn check(case: &str, (values, k): (&[f32], usize), x: &[f32], found: impl Fn(usize, usize) -> f32) {
    for (token, x) in x.chunks(k).enumerate() {
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

/// Returns the product for few tokens, computed in one part and in two, which must not show.
fn multiplied(taken: (Avx512, How), w: &Rows<'_>, tokens: &Tokens) -> Vec<f32> {
    let (rows, m) = (w.rows, tokens.rows());
    let compute = |ranges: &[Range<usize>]| {
        let mut out = vec![f32::NAN; m * rows];
        let shared = SharedOut::new(&mut out);
        // SAFETY: one thread.
        ranges.iter().for_each(|r| unsafe { multiply(taken, w, r.clone(), tokens, &shared, rows) });
        out
    };
    let (out, split) = (compute(&[0..0, 0..rows]), compute(&[0..rows / 3, rows / 3..rows]));
    assert!(out.iter().zip(&split).all(|(a, b)| a.to_bits() == b.to_bits()), "{} {m}: a split shows", w.ty);
    out
}

#[test]
fn few_tokens_agree_with_exact_sums() {
    let Some(simd) = avx512("few_tokens_agree_with_exact_sums") else { return };
    let mut tokens = Tokens::default();
    for (ty, how) in types() {
        let block = ty.block_elements();
        for (rows, k) in [(1, block), (16, 256), (37, 768), (75, 7 * 96_usize.next_multiple_of(block))] {
            let mut bytes = vec![0; 5];
            bytes.extend(blocks(ty, k, rows, 7));
            let w = Rows { ty, bytes: &bytes[5..], columns: k, rows };
            for m in [16, 1, 8, 3, 7, 9, 10, 11, 12, 13, 14, 15] {
                let x = activations(m * k);
                pack(simd, &mut tokens, &x, k, how);
                let (values, x) = (decoded(&w), rounded(ty, &x, k));
                for simd in [simd, simd.of_the_other_maker()] {
                    let out = multiplied((simd, how), &w, &tokens);
                    let case = format!("{ty} {rows}x{k}, {m} tokens, amd: {}", simd.amd());
                    check(&case, (&values, k), &x, |token, r| out[token * rows + r]);
                }
            }
        }
    }
}

#[test]
fn many_tokens_agree_with_exact_sums_whatever_the_strip_and_the_tiles() {
    let Some(simd) = avx512("many_tokens_agree_with_exact_sums_whatever_the_strip_and_the_tiles") else { return };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    for (ty, how) in types() {
        let (rows, k) = (131, 3 * 96_usize.next_multiple_of(ty.block_elements()));
        let bytes = blocks(ty, k, rows, 9);
        let w = Rows { ty, bytes: &bytes, columns: k, rows };
        for m in [7, 27, 29] {
            let x = activations(m * k);
            pack(simd, &mut tokens, &x, k, how);
            let out = blocked((simd, how), &w, &tokens, &mut scratch);
            let x = rounded(ty, &x, k);
            check(&format!("{ty}, {m} tokens"), (&decoded(&w), k), &x, |token, r| out[token * rows + r]);
        }
    }
}

/// Returns the product, computed in blocks of several sizes, which must not show.
fn blocked(taken: (Avx512, How), w: &Rows<'_>, tokens: &Tokens, scratch: &mut Scratch) -> Vec<f32> {
    let (rows, m) = (w.rows, tokens.rows());
    let mut all = Vec::new();
    for (width, each) in [(STRIP, 5), (ROWS, 2), (3 * ROWS, 1)] {
        let mut out = vec![f32::NAN; m * rows];
        for (first, tile) in
            (0..rows).step_by(width).flat_map(|f| (0..tokens.tiles()).step_by(each).map(move |t| (f, t)))
        {
            let tiles = tile..tokens.tiles().min(tile + each);
            let mut c = vec![f32::NAN; tiles.len() * TILE * width];
            product(taken, w, first, tokens, tiles.clone(), scratch, &mut c);
            for (tile, c) in tiles.zip(c.chunks(TILE * width)) {
                let end = rows.min(first + width);
                for (token, c) in tokens.of_tile(tile).zip(c.chunks(width)) {
                    out[token * rows + first..token * rows + end].copy_from_slice(&c[..end - first]);
                }
            }
        }
        all.push(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    }
    assert!(all[0] == all[1] && all[0] == all[2], "{}, {m} tokens: the blocking shows", w.ty);
    all[0].iter().map(|&bits| f32::from_bits(bits)).collect()
}

/// Returns what the largest and the smallest quants would stand for in each place: with quants of zeros and of ones, or by the
/// bounds of the bytes that blocks are unpacked to.
fn ends(w: &Rows<'_>) -> [Vec<f32>; 2] {
    let quants = match w.ty {
        TensorType::Q2_K => 16..80,
        TensorType::Q3_K => 0..96,
        TensorType::Q4_K => 16..144,
        TensorType::Q5_K => 16..176,
        TensorType::Q6_K => 0..192,
        TensorType::Q4_0 => 2..18,
        TensorType::Q4_1 => 4..20,
        TensorType::Q5_0 => 2..22,
        TensorType::Q5_1 => 4..24,
        TensorType::IQ4_NL => 2..18,
        TensorType::IQ4_XS => 8..136,
        ty => {
            let layout = layout(ty).unwrap_or_else(|| panic!("{ty} is rescaled and has no range of quants here"));
            let mut scales = Vec::new();
            for block in w.bytes.chunks(ty.block_bytes()) {
                let mut of_block = [0.0; 16];
                to_bytes(ty, block, &mut Unpacked([0; STEP]), &mut of_block);
                scales.extend(of_block.iter().flat_map(|scale| [*scale; 16]));
            }
            let offset = f32::from(layout.offset);
            return [-offset, f32::from(layout.largest) - offset]
                .map(|end| scales.iter().map(|scale| scale * end).collect());
        }
    };
    [0, 0xff].map(|byte| {
        let mut bytes = w.bytes.to_vec();
        bytes.chunks_mut(w.ty.block_bytes()).for_each(|block| block[quants.clone()].fill(byte));
        decoded(&Rows { bytes: &bytes, ..*w })
    })
}

#[test]
fn rescaled_weights_are_within_half_a_step_and_their_products_exact() {
    let Some(simd) = avx512("rescaled_weights_are_within_half_a_step_and_their_products_exact") else { return };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    // The last piece of 384 columns is half as long as others.
    let cases = types().flat_map(|(ty, _)| [(ty, 512), (ty, 384)]);
    let cases: Vec<_> = cases.filter(|&(ty, k)| k % ty.block_elements() == 0 && rescale::takes(ty, k)).collect();
    assert!(cases.iter().any(|case| case.1 == 384) && cases.iter().any(|case| case.1 == 512), "{cases:?}");
    let rows = 75;
    for (ty, k) in cases {
        let bytes = blocks(ty, k, rows, 4);
        let w = Rows { ty, bytes: &bytes, columns: k, rows };
        // Each token selects a column.
        let one: Vec<f32> = (0..k * k).map(|i| if i / k == i % k { 1.0 } else { 0.0 }).collect();
        pack(simd, &mut tokens, &one, k, How::Bytes(RESCALED));
        let found = blocked((simd, How::Bytes(RESCALED)), &w, &tokens, &mut scratch);
        let found: Vec<f32> = (0..rows * k).map(|i| found[i % k * rows + i / k]).collect();
        let (exact, ends) = (decoded(&w), ends(&w));
        // A factor is off by half of a 256th for each unit of the quant, or of what it is away from the one that stands for zero.
        let (form, largest) = (unpack::form(ty).unwrap(), unpack::largest(ty));
        let units = if form.minimum { largest } else { form.offset.max(largest - form.offset) };
        let tolerance = 0.502 + f32::from(units) / 512.0;
        for (span, found) in found.chunks(rescale::SPAN).enumerate() {
            let of_span = span * rescale::SPAN..(span + 1) * rescale::SPAN;
            let step = ends.iter().flat_map(|e| &e[of_span.clone()]).fold(0.0, |m: f32, x| m.max(x.abs())) / 127.0;
            for (found, exact) in found.iter().zip(&exact[of_span]) {
                assert!((found - exact).abs() <= step * tolerance, "{ty}: {found}, not {exact}, step {step}");
            }
        }
        for m in [24, 31] {
            let x = activations(m * k);
            pack(simd, &mut tokens, &x, k, How::Bytes(RESCALED));
            let out = blocked((simd, How::Bytes(RESCALED)), &w, &tokens, &mut scratch);
            let x = rounded_by(&x, k, rescale::SPAN);
            check(&format!("{ty} rescaled, {m} tokens"), (&found, k), &x, |token, r| out[token * rows + r]);
        }
    }
}

#[test]
fn rescaled_rows_with_numbers_that_are_none_show_and_zeros_stay() {
    let Some(simd) = avx512("rescaled_rows_with_numbers_that_are_none_show_and_zeros_stay") else { return };
    let (ty, rows, k, m) = (TensorType::Q4_K, 4, 256, 24);
    let mut bytes = blocks(ty, k, rows, 2);
    for (row, d) in [(1, 0x7c00_u16), (2, 0x7e00), (3, 0)] {
        let block = &mut bytes[row * ty.block_bytes()..];
        block[..2].copy_from_slice(&d.to_le_bytes());
        block[2..4].fill(0);
    }
    let w = Rows { ty, bytes: &bytes, columns: k, rows };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    pack(simd, &mut tokens, &noise(m * k, 6), k, How::Bytes(RESCALED));
    let out = blocked((simd, How::Bytes(RESCALED)), &w, &tokens, &mut scratch);
    for out in out.chunks(rows) {
        assert!(out[0].is_finite() && out[1].is_nan() && out[2].is_nan() && out[3] == 0.0, "{out:?}");
    }
}

#[test]
fn not_a_number_stays_with_its_token() {
    let Some(simd) = avx512("not_a_number_stays_with_its_token") else { return };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    let own = |ty| How::Bytes(unpack::form(ty).unwrap());
    let rescaled = How::Bytes(RESCALED);
    for (ty, how, value) in [
        (TensorType::Q4_K, own(TensorType::Q4_K), f32::INFINITY),
        (TensorType::Q8_0, own(TensorType::Q8_0), f32::NAN),
        (TensorType::Q6_K, own(TensorType::Q6_K), -f32::INFINITY),
        (TensorType::Q6_K, rescaled, f32::INFINITY),
        (TensorType::Q4_K, rescaled, f32::NAN),
    ] {
        let rows = 20;
        let bytes = blocks(ty, 512, rows, 1);
        let w = Rows { ty, bytes: &bytes, columns: 512, rows };
        let mut x = noise(7 * 512, 2);
        x[512 + 300] = value;
        x[2 * 512..][..32].fill(1e-40);
        pack(simd, &mut tokens, &x, 512, how);
        let mut all = blocked((simd, how), &w, &tokens, &mut scratch);
        if how != rescaled {
            let mut few = vec![0.0; 7 * rows];
            // SAFETY: one thread.
            unsafe { multiply((simd, how), &w, 0..rows, &tokens, &SharedOut::new(&mut few), rows) };
            all.extend(few);
        }
        for (token, out) in all.chunks(rows).enumerate() {
            assert!(out.iter().all(|x| x.is_finite() == (token % 7 != 1)), "{ty} {how:?}, token {token}");
        }
    }
}

/// Returns the way of pairs, or says that the test named `test` is skipped.
fn pairs(test: &str) -> Option<How> {
    let proof = Avx512Bf16::new();
    if proof.is_none() {
        eprintln!("skipped: {test}: this processor has no AVX512_BF16");
    }
    proof.map(How::Pairs)
}

#[test]
fn pairs_agree_with_exact_sums_of_rounded_activations_at_any_size() {
    let test = "pairs_agree_with_exact_sums_of_rounded_activations_at_any_size";
    let (Some(simd), Some(how)) = (avx512(test), pairs(test)) else { return };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    let ty = TensorType::BF16;
    for (rows, k) in [(1, 1), (3, 2), (16, 31), (7, 33), (37, 255), (32, 256), (131, 303), (131, 512), (20, 1055)] {
        for offset in [0, 5] {
            let mut bytes = vec![0xff; offset];
            bytes.extend(blocks(ty, k, rows, 7));
            let w = Rows { ty, bytes: &bytes[offset..], columns: k, rows };
            for m in [1, 2, 3, 5, 6, 7, 13, 16, 29] {
                let x = activations(m * k);
                pack(simd, &mut tokens, &x, k, how);
                let rounded: Vec<f32> = x.iter().map(|&x| bf16_to_f32(f32_to_bf16(x))).collect();
                let (case, values) = (format!("{rows}x{k}, {m} tokens"), decoded(&w));
                let many = blocked((simd, how), &w, &tokens, &mut scratch);
                check(&case, (&values, k), &rounded, |token, r| many[token * rows + r]);
                if m <= MOST_FEW {
                    assert_eq!(multiplied((simd, how), &w, &tokens), many, "{case}: few are computed in another way");
                }
            }
        }
    }
}

#[test]
fn pairs_round_ties_to_even_and_keep_what_is_no_number() {
    let test = "pairs_round_ties_to_even_and_keep_what_is_no_number";
    let (Some(simd), Some(how)) = (avx512(test), pairs(test)) else { return };
    let (mut tokens, mut scratch) = (Tokens::default(), Scratch::new());
    let (ty, k) = (TensorType::BF16, 3);
    // The second row is infinite, which zeros of the columns beyond make no NaN.
    let bytes: Vec<u8> = [1.0, 0.0, 0.0, f32::INFINITY, 0.0, 0.0].map(f32_to_bf16).map(u16::to_le_bytes).concat();
    let w = Rows { ty, bytes: &bytes, columns: k, rows: 2 };
    let cases = [
        (1.0 + 1.0 / 256.0, 1.0),
        (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
        (1.0 + 1.0 / 256.0 + f32::EPSILON, 1.0 + 2.0 / 256.0),
        (-3.0, -3.0),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        // Quiet and signalling; as many bits as bfloat16 leaves out do not make it an infinity.
        (f32::NAN, f32::NAN),
        (f32::from_bits(0x7f80_0001), f32::NAN),
    ];
    let x: Vec<f32> = cases.iter().flat_map(|&(x, _)| [x, 0.0, 0.0]).collect();
    pack(simd, &mut tokens, &x, k, how);
    let found = blocked((simd, how), &w, &tokens, &mut scratch);
    for ((x, want), found) in cases.into_iter().zip(found.chunks(2)) {
        assert!(found[0] == want || want.is_nan() && found[0].is_nan(), "{x:e}: {found:?}, not {want:e}");
        assert!(found[1] == f32::INFINITY.copysign(want) || want.is_nan(), "{x:e}: {found:?}");
    }
}

#[test]
fn pairs_are_for_large_matrices_many_tokens_and_processors_that_are_fast_at_them() {
    let bytes = vec![0; 512 << 10];
    let w = Rows { ty: TensorType::BF16, bytes: &bytes, columns: 256, rows: 1024 };
    let small = Rows { bytes: &bytes[..256 << 10], rows: 512, ..w };
    let half = Rows { ty: TensorType::F16, ..w };
    let fast = Avx512Bf16::new().is_some() && crate::isa::amd();
    assert_eq!(takes(Level::Avx512, &w, FEWEST_IN_PAIRS).is_some(), fast);
    for (level, w, tokens) in [
        (Level::Avx512, w, FEWEST_IN_PAIRS - 1),
        (Level::AvxVnni, w, 99),
        (Level::Avx512, small, 99),
        (Level::Avx512, half, 99),
    ] {
        assert!(takes(level, &w, tokens).is_none(), "{level:?} {} {tokens}", w.ty);
    }
}
