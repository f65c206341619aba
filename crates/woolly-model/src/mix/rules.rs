//! The rules: a type for each category, by mix, layer and the model's proportions.
//!
//! All divisions are integer divisions, as in llama.cpp; the results depend on it.

use woolly_quant::TensorType as T;

use super::category::{Category, is_quantisable, layer};
use super::{Mix, ModelFacts, TensorFacts, fitting_type};

/// Gives each tensor its type; tensors are counted in the order of layers, whatever their order in the file.
pub(super) fn assign(mix: Mix, model: &ModelFacts, tensors: &[TensorFacts<'_>], importance: bool) -> Vec<T> {
    let mut rules = Rules::new(mix, model, tensors, importance);
    let mut order: Vec<(usize, &TensorFacts<'_>)> = tensors.iter().enumerate().collect();
    // What belongs to no layer comes first.
    order.sort_by_key(|(_, tensor)| (layer(tensor.name), tensor.name));
    let mut types: Vec<(usize, T)> = order.into_iter().map(|(at, tensor)| (at, rules.of_tensor(tensor))).collect();
    types.sort_unstable_by_key(|(at, _)| *at);
    types.into_iter().map(|(_, ty)| ty).collect()
}

/// Whether layer `i` of `n` is among the half that deserves more bits: both ends, and every third between.
fn more(i: u64, n: u64) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// What the rules of one model and mix depend on, and how many tensors of a kind were seen.
struct Rules<'a> {
    mix: Mix,
    model: &'a ModelFacts,
    importance: bool,
    /// Embeddings that serve as output too, because there is no other.
    tied: bool,
    falcon: bool,
    layers: u64,
    eight_experts: bool,
    /// Values are small where several query heads share them, and then worth more bits.
    shared_values: bool,
    values: u64,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    value: u64,
    up: u64,
    gate: u64,
    down: u64,
}

impl<'a> Rules<'a> {
    fn new(mix: Mix, model: &'a ModelFacts, tensors: &[TensorFacts<'_>], importance: bool) -> Self {
        let values = tensors.iter().filter(|tensor| Category::of(tensor.name) == Category::Value);
        Self {
            mix,
            model,
            importance,
            tied: !tensors.iter().any(|tensor| Category::of(tensor.name) == Category::Output),
            falcon: model.architecture == "falcon",
            layers: model.block_count.into(),
            eight_experts: model.experts == 8,
            shared_values: model.heads_per_kv_head() >= 4,
            values: values.count() as u64,
            seen: Seen::default(),
        }
    }

    fn of_tensor(&mut self, tensor: &TensorFacts<'_>) -> T {
        if !is_quantisable(tensor) {
            return tensor.ty;
        }
        let base = self.mix.base_type();
        if base.block_elements() == 1 {
            return base;
        }
        fitting_type(self.of_matrix(tensor), tensor.row())
    }

    fn of_matrix(&mut self, tensor: &TensorFacts<'_>) -> T {
        match Category::of(tensor.name) {
            Category::Output => self.output(tensor),
            Category::Embedding if self.tied => self.output(tensor),
            _ if self.mix == Mix::MXFP4_MOE => mxfp4(tensor),
            Category::Embedding => self.embedding(),
            Category::Value => self.value(),
            Category::Key => self.key(),
            Category::Query => self.query(),
            Category::AttentionOutput => self.attention_output(),
            Category::Down => self.down(tensor.name),
            Category::Up => {
                let i = self.layer_index(tensor.name, |seen| &mut seen.up);
                self.up_or_gate(i)
            }
            Category::Gate => {
                let i = self.layer_index(tensor.name, |seen| &mut seen.gate);
                self.up_or_gate(i)
            }
            Category::Other => self.mix.base_type(),
        }
    }

    fn output(&self, tensor: &TensorFacts<'_>) -> T {
        let base = self.mix.base_type();
        match self.mix {
            Mix::MXFP4_MOE => T::Q8_0,
            _ if self.falcon || !tensor.row().is_multiple_of(base.block_elements() as u64) => T::Q8_0,
            Mix::IQ3_XXS => T::Q5_K,
            _ if self.is_low_bit() => T::Q5_K,
            Mix::Q8_0 => T::Q8_0,
            _ => T::Q6_K,
        }
    }

    fn embedding(&self) -> T {
        match self.mix {
            Mix::IQ1_S | Mix::IQ1_M | Mix::IQ2_XXS | Mix::IQ2_XS => T::Q2_K,
            Mix::IQ2_S | Mix::IQ2_M | Mix::IQ3_XXS => T::IQ3_S,
            Mix::TQ1_0 | Mix::TQ2_0 | Mix::Q2_0 => T::Q4_K,
            _ => self.mix.base_type(),
        }
    }

    fn value(&mut self) -> T {
        let i = self.seen.value;
        self.seen.value += 1;
        if self.is_low_bit() {
            return self.low_bit_value();
        }
        if self.eight_experts {
            return T::Q8_0;
        }
        match self.table_value(i) {
            T::Q3_K | T::Q4_K if self.is_large_llama() => T::Q5_K,
            ty => ty,
        }
    }

    fn low_bit_value(&self) -> T {
        match self.mix {
            _ if self.shared_values || self.model.experts >= 4 => T::Q4_K,
            Mix::IQ2_S | Mix::IQ2_M => T::IQ3_S,
            _ => T::Q2_K,
        }
    }

    fn table_value(&self, i: u64) -> T {
        let shared = self.shared_values;
        match self.mix {
            Mix::Q2_K | Mix::Q2_K_S | Mix::IQ3_XXS | Mix::IQ3_XS | Mix::IQ3_S if shared => T::Q4_K,
            Mix::Q2_K => T::Q3_K,
            Mix::IQ3_XXS if !self.importance => T::IQ3_S,
            Mix::IQ3_M => T::Q4_K,
            Mix::Q3_K_M => if_else(i < 2, T::Q5_K, T::Q4_K),
            Mix::Q3_K_L => T::Q5_K,
            Mix::Q4_K_S if i < 4 => T::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if more(i, self.values) => T::Q6_K,
            Mix::IQ4_NL | Mix::IQ4_XS if shared => T::Q5_K,
            _ => self.mix.base_type(),
        }
    }

    fn key(&self) -> T {
        match self.mix {
            _ if self.eight_experts => if_else(self.is_low_bit(), T::Q4_K, T::Q8_0),
            _ => self.query(),
        }
    }

    fn query(&self) -> T {
        match self.mix {
            Mix::IQ3_XXS => T::IQ2_S,
            Mix::IQ3_XS => T::IQ3_XXS,
            _ => self.mix.base_type(),
        }
    }

    fn attention_output(&self) -> T {
        let base = self.mix.base_type();
        match self.mix {
            _ if self.is_low_bit() => self.low_bit_attention_output(),
            mix if self.falcon => if_else(mix == Mix::Q3_K_L, T::Q4_K, base),
            mix if self.eight_experts => if_else(lifts_output_of_eight(mix), T::Q5_K, base),
            Mix::Q2_K => T::Q3_K,
            Mix::IQ3_XXS => T::IQ3_S,
            Mix::Q3_K_M | Mix::IQ3_M => T::Q4_K,
            Mix::Q3_K_L => T::Q5_K,
            _ => base,
        }
    }

    fn low_bit_attention_output(&self) -> T {
        match self.mix {
            _ if self.eight_experts => T::Q5_K,
            Mix::IQ1_S | Mix::IQ1_M => T::IQ2_XXS,
            Mix::IQ2_S | Mix::IQ2_M => T::IQ3_S,
            mix => mix.base_type(),
        }
    }

    fn down(&mut self, name: &str) -> T {
        if self.is_low_bit() {
            return self.low_bit_down();
        }
        let i = self.layer_index(name, |seen| &mut seen.down);
        if self.falcon {
            return self.falcon_down(i);
        }
        let n = self.layers;
        match self.mix {
            Mix::Q2_K => T::Q3_K,
            Mix::Q3_K_M => if_else(i < n / 16, T::Q5_K, T::Q4_K),
            Mix::Q3_K_L => T::Q5_K,
            Mix::Q4_K_S if i < n / 8 => T::Q5_K,
            Mix::Q4_K_M if more(i, n) => T::Q6_K,
            _ => self.common_down(i),
        }
    }

    /// In these mixes tensors are counted even where experts give a layer several of them.
    fn low_bit_down(&mut self) -> T {
        let i = self.seen.down;
        self.seen.down += 1;
        match self.mix {
            mix if i >= self.layers / 8 => mix.base_type(),
            Mix::IQ2_S | Mix::IQ2_M => T::IQ3_S,
            _ => T::Q2_K,
        }
    }

    fn falcon_down(&self, i: u64) -> T {
        let n = self.layers;
        match self.mix {
            Mix::Q2_K => T::Q3_K,
            Mix::Q3_K_M if i < n / 16 => T::Q5_K,
            Mix::Q3_K_M => if_else(more(i, n), T::Q4_K, T::Q3_K),
            Mix::Q3_K_L => T::Q4_K,
            Mix::Q4_K_M if i < n / 16 => T::Q6_K,
            Mix::Q4_K_M => if_else(more(i, n), T::Q5_K, T::Q4_K),
            _ => self.common_down(i),
        }
    }

    /// The rules that hold for every architecture.
    fn common_down(&self, i: u64) -> T {
        let n = self.layers;
        match self.mix {
            Mix::Q2_K_S if i < n / 8 => T::Q4_K,
            Mix::Q5_K_M if more(i, n) => T::Q6_K,
            Mix::IQ3_XXS if !self.importance => if_else(i < n / 8, T::Q4_K, T::Q3_K),
            Mix::IQ3_M if i < n / 8 || (self.eight_experts && more(i, n)) => T::Q4_K,
            Mix::IQ4_NL | Mix::IQ4_XS if i < n / 8 && !self.importance => T::Q5_K,
            Mix::Q4_0 if i < n / 8 && self.importance => T::Q4_1,
            Mix::Q5_0 if i < n / 8 && self.importance => T::Q5_1,
            mix => mix.base_type(),
        }
    }

    fn up_or_gate(&self, i: u64) -> T {
        let n = self.layers;
        let middle = n / 8 <= i && i < 7 * n / 8;
        if_else(self.mix == Mix::IQ3_XS && middle, T::IQ3_XXS, self.mix.base_type())
    }

    /// The number of a feed-forward tensor's layer: counted in dense models, read from the name where experts give a
    /// layer several tensors of a kind.
    fn layer_index(&mut self, name: &str, count: impl FnOnce(&mut Seen) -> &mut u64) -> u64 {
        let count = count(&mut self.seen);
        let counted = *count;
        *count += 1;
        if self.model.experts > 1 { layer(name).unwrap_or(counted) } else { counted }
    }

    fn is_low_bit(&self) -> bool {
        matches!(self.mix, Mix::IQ1_S | Mix::IQ1_M | Mix::IQ2_XXS | Mix::IQ2_XS | Mix::IQ2_S | Mix::IQ2_M)
    }

    /// The 70B models: eight query heads share values, so that more bits for those cost next to nothing.
    fn is_large_llama(&self) -> bool {
        self.model.architecture == "llama" && self.layers == 80 && self.model.heads_per_kv_head() > 1
    }
}

/// Experts take most of the space and are made for this type; the rest is small.
fn mxfp4(tensor: &TensorFacts<'_>) -> T {
    let experts = tensor.dims.iter().skip(2).any(|&size| size > 1);
    if_else(experts, T::MXFP4, T::Q8_0)
}

fn lifts_output_of_eight(mix: Mix) -> bool {
    use Mix as M;
    let quants = matches!(mix, M::Q2_K | M::Q3_K_S | M::Q3_K_M | M::Q4_K_S | M::Q4_K_M);
    quants || matches!(mix, M::IQ3_XXS | M::IQ3_XS | M::IQ3_S | M::IQ3_M | M::IQ4_NL | M::IQ4_XS)
}

fn if_else(condition: bool, yes: T, no: T) -> T {
    if condition { yes } else { no }
}
