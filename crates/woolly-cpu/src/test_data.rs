//! Reproducible operands for the tests of this crate: noise, and blocks of any tensor type with sane values.

use woolly_quant::TensorType;
use woolly_quant::half::{f32_to_bf16, f32_to_f16};

use crate::isa::Level;
use crate::kernels::rounding::Scales;

/// A generator of uniformly distributed bits (Marsaglia's xorshift, 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.bits() as usize % bound
    }

    /// Returns a number from -1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        self.bits() as f32 / 2_147_483_648.0 - 1.0
    }
}

/// Returns `n` numbers from -1 to 1.
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..n).map(|_| random.unit()).collect()
}

/// Returns rows of `k` activations as [`rounding`](crate::kernels::rounding) says for weights of type `ty`, written down a second
/// time.
pub(crate) fn rounded(ty: TensorType, x: &[f32], k: usize) -> Vec<f32> {
    match Scales::of(ty) {
        Scales::Own => rounded_by(x, k, 32),
        Scales::Multiples => rounded_in_multiples(x, k),
        Scales::Block => rounded_by(x, k, 256),
    }
}

/// The same for weights whose activations share a scale over `span` columns.
pub(crate) fn rounded_by(x: &[f32], k: usize, span: usize) -> Vec<f32> {
    let block = |x: &[f32]| {
        let largest = most(x);
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        x.iter().map(|x| (x * inverse).round_ties_even() * (largest / 127.0)).collect::<Vec<_>>()
    };
    x.chunks(k).flat_map(|row| row.chunks(span).flat_map(block)).collect()
}

/// The same for scales of 32 that are multiples of a unit of 256.
fn rounded_in_multiples(x: &[f32], k: usize) -> Vec<f32> {
    let block = |x: &[f32]| {
        let (largest, unit) = (most(x), most(x) / (127.0 * 127.0));
        let group = |x: &[f32]| {
            let scale = (most(x) * (127.0 / largest)).ceil().clamp(1.0, 127.0) * unit;
            x.iter().map(|x| (x * (1.0 / scale)).round_ties_even() * scale).collect::<Vec<_>>()
        };
        x.chunks(32).flat_map(group).collect::<Vec<_>>()
    };
    x.chunks(k).flat_map(|row| row.chunks(256).flat_map(block)).collect()
}

fn most(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m: f32, x| m.max(x.abs()))
}

/// Returns the levels of this CPU.
pub(crate) fn levels() -> Vec<Level> {
    Level::available().collect()
}

/// Returns the proof that there is AMX, or says that the test named `test` is skipped.
#[cfg(target_arch = "x86_64")]
pub(crate) fn amx(test: &str) -> Option<crate::isa::Amx> {
    let amx = crate::isa::Amx::new();
    if amx.is_none() {
        eprintln!("skipped: {test}: this processor has no AMX, or the system does not grant it");
    }
    amx
}

/// Returns a matrix of random blocks whose values are finite and not all tiny.
pub(crate) fn blocks(ty: TensorType, columns: usize, rows: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let count = columns / ty.block_elements() * rows;
    (0..count).flat_map(|_| block(ty, &mut random)).collect()
}

fn block(ty: TensorType, random: &mut Random) -> Vec<u8> {
    let x = random.unit();
    match ty {
        TensorType::F32 => x.to_le_bytes().to_vec(),
        TensorType::F64 => f64::from(x).to_le_bytes().to_vec(),
        TensorType::F16 => f32_to_f16(x).to_le_bytes().to_vec(),
        TensorType::BF16 => f32_to_bf16(x).to_le_bytes().to_vec(),
        TensorType::I8 => vec![(x * 9.0) as i8 as u8],
        TensorType::I16 => ((x * 9.0) as i16).to_le_bytes().to_vec(),
        TensorType::I32 => ((x * 9.0) as i32).to_le_bytes().to_vec(),
        TensorType::I64 => ((x * 9.0) as i64).to_le_bytes().to_vec(),
        _ => random_block(ty, random),
    }
}

/// Draws bytes until they decode to values of ordinary size.
fn random_block(ty: TensorType, random: &mut Random) -> Vec<u8> {
    let mut values = vec![0.0; ty.block_elements()];
    loop {
        let bytes: Vec<u8> = (0..ty.block_bytes()).map(|_| random.bits() as u8).collect();
        ty.decode(&bytes, &mut values).expect("one block");
        let largest = values.iter().fold(0.0_f32, |m, v| if v.is_finite() { m.max(v.abs()) } else { f32::INFINITY });
        if (1e-2..10.0).contains(&largest) {
            return bytes;
        }
    }
}
