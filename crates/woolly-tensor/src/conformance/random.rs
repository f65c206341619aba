//! Seeded inputs of the suite: values, and weights of every tensor type.

use woolly_quant::TensorType;

use crate::WeightSource;

/// A SplitMix64 generator (Steele et al., 2014): small, seeded, the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns values in `-1..1`, with one in sixteen ten times as large: activations have outliers.
    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| {
                let x = (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
                if self.next().is_multiple_of(16) { x * 10.0 } else { x }
            })
            .collect()
    }

    /// Returns a weight of random blocks of `ty`: every bit pattern of a block may occur whose values are finite and
    /// of moderate size.
    pub(super) fn weight(&mut self, ty: TensorType, dims: [usize; 3]) -> WeightSource {
        let blocks = dims[0] / ty.block_elements() * dims[1] * dims[2];
        let bytes = (0..blocks).flat_map(|_| self.block(ty)).collect();
        WeightSource::from_bytes(&format!("random {ty}"), ty, dims, bytes)
    }

    fn block(&mut self, ty: TensorType) -> Vec<u8> {
        let mut values = vec![0.0; ty.block_elements()];
        loop {
            let block: Vec<u8> = (0..ty.block_bytes()).map(|_| self.next() as u8).collect();
            ty.decode(&block, &mut values).expect("a block decodes into as many values as it holds");
            if values.iter().all(|v| v.is_finite() && v.abs() < 100.0) {
                return block;
            }
        }
    }
}

/// Tensor types that a backend multiplies with: all but the integer ones and those that only hold activations.
pub(super) fn weight_types() -> impl Iterator<Item = TensorType> {
    use TensorType::{F64, I8, I16, I32, I64, Q8_1, Q8_K};
    TensorType::ALL.iter().copied().filter(|ty| !matches!(ty, I8 | I16 | I32 | I64 | F64 | Q8_1 | Q8_K))
}
