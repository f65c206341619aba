//! Mixtures of experts with both gatings, renormalised or not, for one row and for many.

use woolly_quant::TensorType;

use super::Tolerance;
use super::dense::{assert_close, tensor, values, weight};
use super::random::Random;
use crate::{Activation, Backend, Experts, Gating, Norm, Reference, WeightSource};

const INPUTS: usize = 64;
const INNER: usize = 96;
const COUNT: usize = 5;

/// The weights of one mixture on the host.
struct Mixture {
    norm: WeightSource,
    router: WeightSource,
    gate: WeightSource,
    up: WeightSource,
    down: WeightSource,
}

impl Mixture {
    fn new(random: &mut Random, ty: TensorType) -> Self {
        let mut matrix = |dims: [usize; 3]| {
            let values = random.values(dims.iter().product());
            let small: Vec<f32> = values.iter().map(|v| v * 0.1).collect();
            let mut bytes = vec![0; ty.row_bytes(small.len()).expect("rows of whole blocks")];
            ty.encode(&small, &mut bytes).expect("the type can be encoded");
            WeightSource::from_bytes("experts", ty, dims, bytes)
        };
        let (gate, up, down) =
            (matrix([INPUTS, INNER, COUNT]), matrix([INPUTS, INNER, COUNT]), matrix([INNER, INPUTS, COUNT]));
        let norm = WeightSource::from_f32("norm", [INPUTS, 1, 1], &random.values(INPUTS));
        let router = WeightSource::from_f32("router", [INPUTS, COUNT, 1], &random.values(INPUTS * COUNT));
        Self { norm, router, gate, up, down }
    }

    fn compute<B: Backend>(
        &self,
        backend: &B,
        x: &[f32],
        before: &[f32],
        gating: Gating,
        renormalise: bool,
    ) -> Vec<f32> {
        let [norm, router, gate, up, down] =
            [&self.norm, &self.router, &self.gate, &self.up, &self.down].map(|source| weight(backend, source));
        let experts = Experts {
            router: &router,
            gate: &gate,
            up: &up,
            down: &down,
            used: 2,
            gating,
            renormalise,
            scale: 1.5,
            activation: Activation::Silu,
        };
        let mut out = tensor(backend, INPUTS, before);
        let norm = Norm { weight: &norm, epsilon: 1e-6 };
        backend.experts(&tensor(backend, INPUTS, x), Some(norm), &experts, &mut out).expect("sizes agree");
        values(backend, &out, x.len())
    }
}

/// Checks mixtures of float and of quantised experts.
///
/// # Panics
/// When a check fails.
pub fn experts<B: Backend>(backend: &B, tolerance: Tolerance) {
    let mut random = Random::new(6);
    for (ty, share) in
        [(TensorType::F32, 1e-4), (TensorType::Q8_0, if tolerance.integer_activations { 0.03 } else { 1e-4 })]
    {
        let mixture = Mixture::new(&mut random, ty);
        for (rows, gating, renormalise) in [
            (1, Gating::Softmax, true),
            (1, Gating::Sigmoid, false),
            (19, Gating::Softmax, false),
            (40, Gating::Sigmoid, true),
        ] {
            let (x, before) = (random.values(rows * INPUTS), random.values(rows * INPUTS));
            let got = mixture.compute(backend, &x, &before, gating, renormalise);
            let want = mixture.compute(&Reference::new(), &x, &before, gating, renormalise);
            let largest = want.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
            let case = format!("experts of {ty}, {gating:?}, {rows} rows");
            assert_close(&case, &got, &want, &vec![largest * share; want.len()]);
        }
    }
}
