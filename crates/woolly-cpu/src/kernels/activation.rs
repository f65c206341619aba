//! Non-linearities of gated feed-forward networks, applied to the gate and multiplied with the other branch.

use woolly_tensor::Activation;

use crate::isa::Level;
use crate::kernels::simd::{TileKernel, TileSimd, dispatch, exp};

/// Computes `gate = act(gate) · up`, element by element.
pub(crate) fn gate(level: Level, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate: lengths differ");
    dispatch(level, Gate { activation, gate, up });
}

struct Gate<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl TileKernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        for (gate, up) in self.gate.chunks_mut(S::LANES).zip(self.up.chunks(S::LANES)) {
            if gate.len() == S::LANES {
                s.store(gate, s.mul(activate(s, self.activation, s.load(gate)), s.load(up)));
            } else {
                let x = activate(s, self.activation, s.load_partial(gate, 0.0));
                s.store_partial(s.mul(x, s.load_partial(up, 0.0)), gate);
            }
        }
    }
}

/// Both forms are `x · sigmoid(y)`: SiLU with `y = x`, the tanh form of GELU with `y = √(8/π) (x + 0.044715 x³)`.
#[inline(always)]
pub(crate) fn activate<S: TileSimd>(s: S, activation: Activation, x: S::F) -> S::F {
    const SQRT_8_OVER_PI: f32 = 1.595_769_2;
    let y = match activation {
        Activation::Gelu => {
            let cubic = s.mul_add(s.mul(x, x), s.splat(0.044_715 * SQRT_8_OVER_PI), s.splat(SQRT_8_OVER_PI));
            s.mul(x, cubic)
        }
        _ => x,
    };
    let e = exp(s, s.sub(s.splat(0.0), y));
    s.div(x, s.add(s.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::levels;

    #[test]
    fn gates_match_the_definition_over_their_whole_range() {
        let inputs: Vec<f32> =
            (-3000..3000).map(|i| i as f32 * 0.01).chain([0.0, 200.0, -200.0, 1e-20, -3e9]).collect();
        let up: Vec<f32> = (0..inputs.len()).map(|i| 1.0 + i as f32 * 1e-3).collect();
        for (level, activation) in levels().into_iter().flat_map(|l| [(l, Activation::Silu), (l, Activation::Gelu)]) {
            let mut out = inputs.clone();
            gate(level, activation, &mut out, &up);
            for ((&x, &u), &o) in inputs.iter().zip(&up).zip(&out) {
                let expected = woolly_tensor::ops::activate(activation, x) * u;
                // Far out on the left, where e^y stops at 88, what remains is below 1e-35 of x; -3e9 shows it.
                let bound = expected.abs() * 4e-6 + x.abs() * 1e-36 + u * 1e-7;
                assert!((o - expected).abs() <= bound, "{level:?} {activation:?}({x}) · {u} = {o}, not {expected}");
            }
        }
    }
}
