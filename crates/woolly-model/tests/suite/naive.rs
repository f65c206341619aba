//! A second implementation of the models in double precision, written from the published formulas: whole sequences, no
//! cache, no batches, nothing shared with the crate under test.

use std::f64::consts::PI;

use crate::fixture::{ExpertSpec, Fixture, RopeSpec, Scaling, Spec};

/// Returns the logits of every position: `[ids][vocab]`.
pub(crate) fn logits(spec: &Spec, fixture: &Fixture, ids: &[u32]) -> Vec<Vec<f64>> {
    let net = Net { spec, fixture };
    let table = net.get("token_embd.weight");
    let mut xs: Vec<Vec<f64>> =
        ids.iter().map(|&id| table[id as usize * spec.width..][..spec.width].to_vec()).collect();
    for layer in 0..spec.layers {
        let attended = net.attention(layer, &xs);
        xs.iter_mut().zip(&attended).for_each(|(x, y)| add(x, y));
        for x in &mut xs {
            let y = net.feed_forward(layer, x);
            add(x, &y);
        }
    }
    let head = if spec.tied { table } else { net.get("output.weight") };
    xs.iter().map(|x| times(&head, &net.norm("output_norm.weight", x))).collect()
}

struct Net<'a> {
    spec: &'a Spec,
    fixture: &'a Fixture,
}

impl Net<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        let tensor = self.fixture.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        tensor.1.iter().map(|&x| f64::from(x)).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let square: f64 = x.iter().map(|x| x.powi(2)).sum();
        let length = (square / x.len() as f64 + f64::from(self.spec.epsilon)).sqrt();
        x.iter().zip(self.get(name)).map(|(x, w)| x / length * w).collect()
    }

    fn map(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mut y = times(&self.get(&format!("{name}.weight")), x);
        if self.fixture.tensors.contains_key(&format!("{name}.bias")) {
            add(&mut y, &self.get(&format!("{name}.bias")));
        }
        y
    }

    /// Heads of length `length` of every position, normalised and rotated: `[positions][heads][length]`.
    fn heads(&self, layer: usize, what: &str, xs: &[Vec<f64>], length: usize, rotated: bool) -> Vec<Vec<Vec<f64>>> {
        let norm = format!("blk.{layer}.attn_{what}_norm.weight");
        let head = |position: usize, head: &[f64]| {
            let mut head = if rotated && self.spec.head_norms { self.norm(&norm, head) } else { head.to_vec() };
            if rotated {
                self.rotate(&mut head, position);
            }
            head
        };
        let position = |(position, x): (usize, &Vec<f64>)| {
            let all = self.map(&format!("blk.{layer}.attn_{what}"), x);
            all.chunks(length).map(|part| head(position, part)).collect()
        };
        xs.iter().enumerate().map(position).collect()
    }

    fn attention(&self, layer: usize, xs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let Spec { heads, kv_heads, key_length, value_length, .. } = *self.spec;
        let xs: Vec<_> = xs.iter().map(|x| self.norm(&format!("blk.{layer}.attn_norm.weight"), x)).collect();
        let q = self.heads(layer, "q", &xs, key_length, true);
        let k = self.heads(layer, "k", &xs, key_length, true);
        let v = self.heads(layer, "v", &xs, value_length, false);
        let attend = |position: usize| {
            let mut all = Vec::new();
            for (head, q) in q[position].iter().enumerate() {
                let shared = head / (heads / kv_heads);
                let scores = (0..=position).map(|p| dot(q, &k[p][shared]) / (key_length as f64).sqrt());
                let mut sum = vec![0.0; value_length];
                for (p, weight) in softmax(&scores.collect::<Vec<_>>()).into_iter().enumerate() {
                    sum.iter_mut().zip(&v[p][shared]).for_each(|(s, v)| *s += weight * v);
                }
                all.extend(sum);
            }
            self.map(&format!("blk.{layer}.attn_output"), &all)
        };
        (0..xs.len()).map(attend).collect()
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        let rope = &self.spec.rope;
        for pair in 0..rope.dims / 2 {
            let divisor = if rope.divisors { self.get("rope_freqs.weight")[pair] } else { 1.0 };
            let (angle, magnitude) = angle(rope, pair, position as f64 / divisor);
            let (a, b) = if rope.halves { (pair, pair + rope.dims / 2) } else { (2 * pair, 2 * pair + 1) };
            let (x, y) = (head[a], head[b]);
            head[a] = magnitude * (x * angle.cos() - y * angle.sin());
            head[b] = magnitude * (x * angle.sin() + y * angle.cos());
        }
    }

    fn feed_forward(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        let x = self.norm(&format!("blk.{layer}.ffn_norm.weight"), x);
        let blk = |name: &str| format!("blk.{layer}.{name}.weight");
        match &self.spec.experts {
            None => swiglu(&self.get(&blk("ffn_gate")), &self.get(&blk("ffn_up")), &self.get(&blk("ffn_down")), &x),
            Some(experts) => self.mixture(layer, experts, &x),
        }
    }

    fn mixture(&self, layer: usize, experts: &ExpertSpec, x: &[f64]) -> Vec<f64> {
        let blk = |name: &str| self.get(&format!("blk.{layer}.{name}.weight"));
        let weights = softmax(&times(&blk("ffn_gate_inp"), x));
        let mut order: Vec<usize> = (0..experts.count).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        order.truncate(experts.used);
        let total: f64 = if experts.renormalise { order.iter().map(|&e| weights[e]).sum() } else { 1.0 };
        let mut sum = vec![0.0; x.len()];
        for expert in order {
            let part = |name: &str| self.expert(layer, name, experts, expert);
            let y = swiglu(&part("gate"), &part("up"), &part("down"), x);
            let weight = weights[expert] / total * f64::from(experts.scale);
            sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
        }
        if experts.shared.is_some() {
            let y = swiglu(&blk("ffn_gate_shexp"), &blk("ffn_up_shexp"), &blk("ffn_down_shexp"), x);
            let weight = 1.0 / (1.0 + (-dot(&blk("ffn_gate_inp_shexp"), x)).exp());
            sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
        }
        sum
    }

    fn expert(&self, layer: usize, name: &str, experts: &ExpertSpec, expert: usize) -> Vec<f64> {
        if experts.one_by_one {
            return self.get(&format!("blk.{layer}.ffn_{name}.{expert}.weight"));
        }
        let size = self.spec.width * experts.inner;
        self.get(&format!("blk.{layer}.ffn_{name}_exps.weight"))[expert * size..][..size].to_vec()
    }
}

/// Angle of a pair at `position`, and the factor on what is rotated by it.
fn angle(rope: &RopeSpec, pair: usize, position: f64) -> (f64, f64) {
    let (n, base) = (rope.dims as f64, f64::from(rope.base));
    let full = position / base.powf(2.0 * pair as f64 / n);
    let magnitude = f64::from(rope.attn_factor);
    match rope.scaling {
        Scaling::Absent | Scaling::None(_) => (full, magnitude),
        Scaling::Linear(s) | Scaling::OldLinear(s) => (full / f64::from(s), magnitude),
        Scaling::Yarn { factor, original, log_multiplier } => {
            let s = f64::from(factor);
            let dim = |beta: f64| n * (original as f64 / (2.0 * PI * beta)).ln() / (2.0 * base.ln());
            let (low, high) = (dim(32.0).floor().max(0.0), dim(1.0).ceil().min(n - 1.0));
            let ramp = 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            let sharper = (0.1 * s.ln() + 1.0) / (0.1 * f64::from(log_multiplier) * s.ln() + 1.0);
            (full / s * (1.0 - ramp) + full * ramp, magnitude * sharper)
        }
    }
}

fn swiglu(gate: &[f64], up: &[f64], down: &[f64], x: &[f64]) -> Vec<f64> {
    let silu = |z: f64| z / (1.0 + (-z).exp());
    let inner: Vec<f64> = times(gate, x).into_iter().zip(times(up, x)).map(|(g, u)| silu(g) * u).collect();
    times(down, &inner)
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// `W · x`, the rows of `W` being as long as `x`.
fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks(x.len()).map(|row| dot(row, x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &mut [f64], b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}
