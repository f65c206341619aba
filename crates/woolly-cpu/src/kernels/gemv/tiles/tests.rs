//! Every format against double-precision sums over the codec's decoding and the rounded vectors.

use super::*;
use crate::isa::Level;
use crate::test_data::{amx, blocks, noise, rounded};

const TYPES: [TensorType; 6] =
    [TensorType::Q4_0, TensorType::IQ4_NL, TensorType::Q8_0, TensorType::Q4_K, TensorType::Q5_K, TensorType::Q6_K];

fn compute(amx: Amx, w: &Rows<'_>, x: &Columns, ranges: &[Range<usize>]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() * w.rows];
    let shared = SharedOut::new(&mut out);
    ranges.iter().for_each(|range| gemv(amx, w, range.clone(), x, &shared, w.rows));
    out
}

#[test]
fn the_list_is_what_is_taken() {
    let taken = |ty: &TensorType| arrangement(*ty).is_some();
    assert_eq!(TensorType::ALL.iter().copied().filter(taken).count(), TYPES.len());
    assert!(TYPES.iter().all(taken));
}

#[test]
fn every_format_agrees_with_exact_sums() {
    let Some(amx) = amx("every_format_agrees_with_exact_sums") else { return };
    let mut columns = Columns::default();
    for ty in TYPES {
        let block = ty.block_elements();
        for (rows, k) in [(1, block), (16, 256), (37, 768), (53, 7 * block.max(96))] {
            let mut bytes = vec![0; 5];
            bytes.extend(blocks(ty, k, rows, 7));
            let mut values = vec![0.0; rows * k];
            ty.decode(&bytes[5..], &mut values).unwrap();
            let w = Rows { ty, bytes: &bytes[5..], columns: k, rows };
            for m in [16, 1, 8, 9, 3] {
                let x: Vec<f32> = noise(m * k, 3)
                    .iter()
                    .enumerate()
                    .map(|(i, x)| x * if i / 32 % 5 == 3 { 40.0 } else { 1.0 })
                    .collect();
                columns.reset(m, k);
                columns.prepare(Level::best(), ty, &x);
                let out = compute(amx, &w, &columns, &[0..0, 0..rows]);
                let split = compute(amx, &w, &columns, &[0..rows / 3, rows / 3..rows]);
                assert!(out.iter().zip(&split).all(|(a, b)| a.to_bits() == b.to_bits()), "{ty} {m}: a split shows");
                for (c, x) in rounded(ty, &x, k).chunks(k).enumerate() {
                    for (r, row) in values.chunks(k).enumerate() {
                        let terms = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                        let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + f64::abs(t)));
                        // Minimums and weights cancel: what is rounded may be a few times what is left.
                        let bound = (size * 8.0 + 1e-3) * f64::from(f32::EPSILON) * (8.0 + (k as f64).sqrt() / 4.0);
                        let off = (f64::from(out[c * rows + r]) - exact).abs();
                        assert!(off <= bound, "{ty} {rows}x{k}, {m}: row {r} vector {c} off by {off:e}, not {bound:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn not_a_number_stays_in_its_vector() {
    let Some(amx) = amx("not_a_number_stays_in_its_vector") else { return };
    for (ty, m) in [(TensorType::Q4_K, 4), (TensorType::Q8_0, 12)] {
        let bytes = blocks(ty, 512, 20, 1);
        let w = Rows { ty, bytes: &bytes, columns: 512, rows: 20 };
        let mut x = noise(m * 512, 2);
        x[512 + 300] = f32::INFINITY;
        let mut columns = Columns::default();
        columns.reset(m, 512);
        columns.prepare(Level::best(), ty, &x);
        let out = compute(amx, &w, &columns, &[0..0, 0..20]);
        for (c, out) in out.chunks(20).enumerate() {
            assert!(out.iter().all(|x| x.is_finite() == (c != 1)), "{ty}, vector {c}");
        }
    }
}
