//! Every type, level and shape against a double-precision sum over the codec's decoding.

use std::array;

use super::*;
use crate::kernels::rounding;
use crate::test_data;

/// A small generator with a fixed sequence (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scales {
    /// Blocks whose largest value is between 0.01 and 100.
    Usual,
    /// Any finite block: subnormal, zero and huge scales.
    Extreme,
}

/// Random bytes that decode to finite values; what the scales are is left to chance and to rejection.
fn random_block(ty: TensorType, scales: Scales, random: &mut Random) -> Vec<u8> {
    let mut values = vec![0.0; ty.block_elements()];
    loop {
        let block: Vec<u8> = (0..ty.block_bytes()).map(|_| random.next() as u8).collect();
        ty.decode(&block, &mut values).unwrap();
        let largest = values.iter().fold(0.0, |m: f32, x| if x.abs() <= m { m } else { x.abs() });
        let accepted = match scales {
            Scales::Usual => (0.01..100.0).contains(&largest),
            Scales::Extreme => largest < 1e7,
        };
        if accepted {
            return block;
        }
    }
}

struct Case {
    ty: TensorType,
    k: usize,
    rows: usize,
    bytes: Vec<u8>,
    offset: usize,
    x: Vec<f32>,
}

impl Case {
    fn new(ty: TensorType, k: usize, rows: usize, offset: usize, scales: Scales) -> Self {
        let mut random = Random(0x9e37_79b9 + k as u64 * 31 + rows as u64);
        let blocks = rows * k / ty.block_elements();
        let mut bytes = vec![0xa5; offset];
        (0..blocks).for_each(|_| bytes.extend(random_block(ty, scales, &mut random)));
        let x = (0..MAX_COLUMNS * k).map(|i| random.float() * if i / 32 % 5 == 3 { 40.0 } else { 1.0 }).collect();
        Self { ty, k, rows, bytes, offset, x }
    }

    fn matrix(&self) -> Rows<'_> {
        Rows { ty: self.ty, bytes: &self.bytes[self.offset..], columns: self.k, rows: self.rows }
    }

    /// `[column][row]`, computed in the ranges given.
    fn run(&self, level: Level, m: usize, ranges: &[Range<usize>], force: Option<Path>) -> Vec<f32> {
        let mut input = Input::with_capacity(MAX_COLUMNS, MAX_COLUMNS_OF_FLOATS, self.k);
        let w = self.matrix();
        let path = force.unwrap_or_else(|| path(level, &w));
        input.prepare_path(level, path, &self.x[..m * self.k], m, self.k);
        let mut out = vec![f32::NAN; m * self.rows];
        let shared = SharedOut::new(&mut out);
        for range in ranges {
            gemv_path(level, path, &w, range.clone(), &input, &shared, self.rows);
        }
        out
    }

    /// Asserts every result against a sum in double precision; `x` are the activations that count as exact.
    fn check(&self, out: &[f32], x: &[f32], what: &str) {
        let row_bytes = self.ty.row_bytes(self.k).unwrap();
        let mut row = vec![0.0; self.k];
        for r in 0..self.rows {
            self.ty.decode(&self.matrix().bytes[r * row_bytes..][..row_bytes], &mut row).unwrap();
            for (c, x) in x.chunks(self.k).enumerate().take(out.len() / self.rows) {
                let exact: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                let error = (f64::from(out[c * self.rows + r]) - exact).abs();
                let bound = self.rounding_bound(&row, x);
                assert!(
                    error <= bound,
                    "{what}: row {r}, column {c}: {} is {error:e} from {exact}, bound {bound:e}",
                    out[c * self.rows + r]
                );
            }
        }
    }

    /// Each product is rounded a few times and joins a sum of at most `k / 4` terms a lane; offsets and minimums make
    /// intermediate terms as large as a few times the largest value of the block.
    fn rounding_bound(&self, row: &[f32], x: &[f32]) -> f64 {
        let block = self.ty.block_elements().max(32);
        let size = |(w, x): (&[f32], &[f32])| {
            let largest = w.iter().fold(0.0, |m: f32, w| m.max(w.abs()));
            f64::from(largest) * x.iter().map(|x| f64::from(x.abs())).sum::<f64>()
        };
        let terms: f64 = row.chunks(block).zip(x.chunks(block)).map(size).sum();
        (terms * 4.0 * f64::from(f32::EPSILON) + f64::from(f32::MIN_POSITIVE)) * (8.0 + (self.k as f64).sqrt() / 4.0)
    }
}

/// The activations as a path rounds them.
fn rounded(path: Path, x: &[f32], k: usize) -> Vec<f32> {
    match path {
        Path::Int8(ty) => test_data::rounded(ty, x, k),
        #[cfg(target_arch = "x86_64")]
        Path::Words(ty) | Path::Wide(ty) => test_data::rounded(ty, x, k),
        _ => x.to_vec(),
    }
}

/// The paths that a quantised type can take at a level above the scalar one.
fn quantised_paths(level: Level, ty: TensorType) -> Vec<Path> {
    let paths = [if has_exact(ty) { Path::Exact(ty) } else { Path::Decode }, Path::Int8(ty)];
    #[cfg(target_arch = "x86_64")]
    let more = match ty {
        ty if words::has(level, ty) => Some(Path::Words(ty)),
        ty if wide::has(level, ty) => Some(Path::Wide(ty)),
        _ => None,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (_, more) = (level, None);
    paths.into_iter().chain(more).collect()
}

/// Row lengths: one block, odd numbers of blocks, several steps and a rest.
fn lengths(ty: TensorType) -> Vec<usize> {
    match ty.block_elements() {
        1 => vec![1, 3, 63, 64, 65, 172, 576],
        32 => vec![32, 64, 96, 128, 160, 224, 512, 1056],
        n => vec![n, 3 * n, 5 * n],
    }
}

/// Types with weights; integers and the activation-only types are decoded alike and carry no scales to go wrong.
fn types() -> impl Iterator<Item = TensorType> {
    TensorType::ALL.iter().copied().filter(|ty| !matches!(ty, TensorType::F64 | TensorType::I64 | TensorType::I32))
}

fn whole(rows: usize) -> [Range<usize>; 1] {
    array::from_fn(|_| 0..rows)
}

#[test]
fn every_type_and_level_agrees_with_exact_sums() {
    for ty in types() {
        for (i, k) in lengths(ty).into_iter().enumerate() {
            for scales in [Scales::Usual, Scales::Extreme] {
                let case = Case::new(ty, k, 5 + i, 7 * i % 64, scales);
                for level in Level::available() {
                    let quantised = has_format(ty) && level > Level::Scalar;
                    let paths = if quantised { quantised_paths(level, ty) } else { vec![path(level, &case.matrix())] };
                    for path in paths {
                        let x = rounded(path, &case.x, k);
                        let out = case.run(level, MAX_COLUMNS, &whole(case.rows), Some(path));
                        case.check(&out, &x, &format!("{ty} {level:?} {path:?} {scales:?} k={k}"));
                    }
                }
            }
        }
    }
}

#[test]
fn rounding_activations_changes_results_by_a_few_hundredths_at_most() {
    for ty in types().filter(|&ty| has_format(ty)) {
        let k = 1024;
        let case = Case::new(ty, k, 9, 3, Scales::Usual);
        // A fifth of the groups reach to 40, the others to 1, evenly: rms 10. Where they share a scale all are off by
        // 40 / 127 / √12 = 0.09 rms, which is 0.009 of it, otherwise by 0.004; and since the scales of blocks differ by orders of
        // magnitude, few blocks make the results, which may be off by up to three times that.
        let most = if rounding::Scales::of(ty) == rounding::Scales::Block { 0.027 } else { 0.01 };
        for level in Level::available().filter(|&level| level > Level::Scalar) {
            let exact = case.run(level, 2, &whole(9), None);
            let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            for path in quantised_paths(level, ty) {
                let rounded = case.run(level, 2, &whole(9), Some(path));
                let difference: Vec<f32> = exact.iter().zip(&rounded).map(|(a, b)| a - b).collect();
                let found = norm(&difference) / norm(&exact);
                assert!(found <= most, "{ty} {level:?} {path:?}: {found}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_split_or_columns() {
    for ty in types() {
        let k = lengths(ty)[2];
        for offset in [0, 1, 31, 63] {
            let case = Case::new(ty, k, 23, offset, Scales::Usual);
            for level in Level::available() {
                let quantised = has_format(ty) && level > Level::Scalar;
                let paths = if quantised { quantised_paths(level, ty) } else { Vec::new() };
                for path in [None].into_iter().chain(paths.into_iter().map(Some)) {
                    let all = case.run(level, MAX_COLUMNS, &whole(23), path);
                    let splits: [&[Range<usize>]; 3] =
                        [&[0..1, 1..23], &[0..12, 12..23], &[0..3, 3..5, 5..5, 5..10, 10..16, 16..23]];
                    for m in 1..=MAX_COLUMNS {
                        let out = case.run(level, m, splits[m % 3], path);
                        let same = out.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{ty} {level:?} {path:?} offset {offset}, {m} columns");
                    }
                }
            }
        }
    }
}

#[test]
fn not_a_number_is_passed_on() {
    for ty in [TensorType::Q4_K, TensorType::Q6_K, TensorType::Q8_0, TensorType::Q4_0] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut case = Case::new(ty, 512, 4, 0, Scales::Usual);
            case.x[300] = bad;
            for level in Level::available().filter(|&level| level > Level::Scalar) {
                for path in quantised_paths(level, ty) {
                    let out = case.run(level, 2, &whole(4), Some(path));
                    assert!(out[..4].iter().all(|x| !x.is_finite()), "{ty} {level:?} {path:?} {bad}");
                    assert!(out[4..].iter().all(|x| x.is_finite()), "{ty} {level:?}: the other column is untouched");
                }
            }
        }
    }
}

#[test]
fn preparing_again_keeps_or_replaces() {
    let case = Case::new(TensorType::Q4_K, 256, 2, 0, Scales::Usual);
    let (w, x) = (case.matrix(), &case.x[..256]);
    let level = Level::best();
    let run = |input: &Input| {
        let mut out = [0.0; 2];
        gemv(level, &w, 0..2, input, &SharedOut::new(&mut out), 2);
        out
    };
    let mut input = Input::with_capacity(1, 1, 256);
    input.prepare(level, &w, x, 1, 256);
    let first = run(&input);
    input.prepare(level, &w, &[0.0; 256], 1, 256);
    assert_eq!(run(&input), first, "already prepared");
    input.invalidate();
    input.prepare(level, &w, &[0.0; 256], 1, 256);
    assert_eq!(run(&input), [0.0; 2]);
}

#[test]
#[should_panic(expected = "prepared")]
fn an_input_for_another_type_is_refused() {
    let case = Case::new(TensorType::Q4_K, 256, 2, 0, Scales::Usual);
    let other = Case::new(TensorType::Q6_K, 256, 2, 0, Scales::Usual);
    let mut input = Input::with_capacity(1, 1, 256);
    input.prepare(Level::best(), &case.matrix(), &case.x[..256], 1, 256);
    input.plain.invalidate();
    gemv(Level::best(), &other.matrix(), 0..2, &input, &SharedOut::new(&mut [0.0; 2]), 2);
}
