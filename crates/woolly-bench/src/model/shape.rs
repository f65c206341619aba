//! The sizes of known models, as their published configurations give them.

use woolly_gguf::Value;

use crate::Error;

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shape {
    /// The model's usual name.
    pub name: &'static str,
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Width of the residual stream.
    pub width: u64,
    /// Number of layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_length: u32,
    /// Inner width of a feed-forward network.
    pub inner: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// Tokens of context that the model was made for.
    pub context: u32,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Whether the embedding is also the output matrix.
    pub tied: bool,
    /// Whether queries, keys and values have biases.
    pub biases: bool,
    /// Whether heads of queries and keys are normalised.
    pub head_norms: bool,
    /// Experts of a layer and how many of them a token uses; `None` for dense models.
    pub experts: Option<(u32, u32)>,
}

/// What dense, untied models without biases have in common; widths are zero so that a forgotten one shows.
const LLAMA: Shape = Shape {
    name: "",
    architecture: "llama",
    width: 0,
    layers: 0,
    heads: 0,
    kv_heads: 0,
    head_length: 0,
    inner: 0,
    vocabulary: 32_000,
    context: 0,
    rope_base: 10_000.0,
    tied: false,
    biases: false,
    head_norms: false,
    experts: None,
};

const QWEN: Shape = Shape { vocabulary: 151_936, context: 32_768, rope_base: 1e6, tied: true, ..LLAMA };

#[rustfmt::skip]
const SHAPES: [Shape; 9] = [
    Shape { name: "TinyLlama-1.1B", width: 2048, layers: 22, heads: 32, kv_heads: 4, head_length: 64, inner: 5632, context: 2048, ..LLAMA },
    Shape { name: "Llama-3.2-1B", width: 2048, layers: 16, heads: 32, kv_heads: 8, head_length: 64, inner: 8192, vocabulary: 128_256, context: 131_072, rope_base: 5e5, tied: true, ..LLAMA },
    Shape { name: "Llama-2-7B", width: 4096, layers: 32, heads: 32, kv_heads: 32, head_length: 128, inner: 11_008, context: 4096, ..LLAMA },
    Shape { name: "Llama-3-8B", width: 4096, layers: 32, heads: 32, kv_heads: 8, head_length: 128, inner: 14_336, vocabulary: 128_256, context: 8192, rope_base: 5e5, ..LLAMA },
    Shape { name: "Qwen2.5-0.5B", architecture: "qwen2", width: 896, layers: 24, heads: 14, kv_heads: 2, head_length: 64, inner: 4864, biases: true, ..QWEN },
    Shape { name: "Qwen2.5-1.5B", architecture: "qwen2", width: 1536, layers: 28, heads: 12, kv_heads: 2, head_length: 128, inner: 8960, biases: true, ..QWEN },
    Shape { name: "Qwen3-4B", architecture: "qwen3", width: 2560, layers: 36, heads: 32, kv_heads: 8, head_length: 128, inner: 9728, context: 40_960, head_norms: true, ..QWEN },
    Shape { name: "Mistral-7B", width: 4096, layers: 32, heads: 32, kv_heads: 8, head_length: 128, inner: 14_336, context: 32_768, ..LLAMA },
    Shape { name: "Mixtral-8x7B", width: 4096, layers: 32, heads: 32, kv_heads: 8, head_length: 128, inner: 14_336, context: 32_768, rope_base: 1e6, experts: Some((8, 2)), ..LLAMA },
];

impl Shape {
    /// Returns every known shape.
    pub fn all() -> &'static [Self] {
        &SHAPES
    }

    /// Returns the shape called `name`, in any case.
    ///
    /// # Errors
    /// [`Error::UnknownShape`], which lists the known ones.
    pub fn named(name: &str) -> Result<Self, Error> {
        let found = SHAPES.iter().find(|shape| shape.name.eq_ignore_ascii_case(name)).cloned();
        let known = || SHAPES.map(|shape| shape.name).join(", ");
        found.ok_or_else(|| Error::UnknownShape { name: name.chars().take(64).collect(), known: known() })
    }

    /// Returns the metadata keys of the architecture, for contexts of at least `context` tokens.
    pub(super) fn metadata(&self, context: usize) -> Vec<(String, Value)> {
        let context = u32::try_from(context).unwrap_or(u32::MAX).max(self.context);
        // llama.cpp takes counts of 32 bits only.
        let [width, inner, vocabulary] =
            [self.width, self.inner, self.vocabulary].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let mut keys: Vec<(&str, Value)> = vec![
            ("context_length", context.into()),
            ("embedding_length", width.into()),
            ("block_count", self.layers.into()),
            ("feed_forward_length", inner.into()),
            ("attention.head_count", self.heads.into()),
            ("attention.head_count_kv", self.kv_heads.into()),
            ("attention.key_length", self.head_length.into()),
            ("attention.value_length", self.head_length.into()),
            ("attention.layer_norm_rms_epsilon", 1e-5_f32.into()),
            ("rope.dimension_count", self.head_length.into()),
            ("rope.freq_base", self.rope_base.into()),
            ("vocab_size", vocabulary.into()),
        ];
        if let Some((count, used)) = self.experts {
            keys.extend([("expert_count", count.into()), ("expert_used_count", used.into())]);
        }
        keys.into_iter().map(|(key, value)| (format!("{}.{key}", self.architecture), value)).collect()
    }

    /// Returns names and dimensions of all tensors, in the order in which a step reads them.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![self.width, self.vocabulary])];
        for layer in 0..self.layers {
            tensors.extend(self.layer().into_iter().map(|(name, dims)| (format!("blk.{layer}.{name}"), dims)));
        }
        tensors.push(("output_norm.weight".to_owned(), vec![self.width]));
        if !self.tied {
            tensors.push(("output.weight".to_owned(), vec![self.width, self.vocabulary]));
        }
        tensors
    }

    fn layer(&self) -> Vec<(&'static str, Vec<u64>)> {
        let Self { width, inner, .. } = *self;
        let [queries, keys] = [self.heads, self.kv_heads].map(|heads| u64::from(heads) * u64::from(self.head_length));
        let mut tensors = vec![
            ("attn_norm.weight", vec![width]),
            ("attn_q.weight", vec![width, queries]),
            ("attn_k.weight", vec![width, keys]),
            ("attn_v.weight", vec![width, keys]),
            ("attn_output.weight", vec![queries, width]),
            ("ffn_norm.weight", vec![width]),
        ];
        if self.biases {
            tensors.extend([("attn_q.bias", vec![queries]), ("attn_k.bias", vec![keys]), ("attn_v.bias", vec![keys])]);
        }
        if self.head_norms {
            let length = u64::from(self.head_length);
            tensors.extend([("attn_q_norm.weight", vec![length]), ("attn_k_norm.weight", vec![length])]);
        }
        match self.experts.map(|(count, _)| u64::from(count)) {
            None => tensors.extend([
                ("ffn_gate.weight", vec![width, inner]),
                ("ffn_up.weight", vec![width, inner]),
                ("ffn_down.weight", vec![inner, width]),
            ]),
            Some(experts) => tensors.extend([
                ("ffn_gate_inp.weight", vec![width, experts]),
                ("ffn_gate_exps.weight", vec![width, inner, experts]),
                ("ffn_up_exps.weight", vec![width, inner, experts]),
                ("ffn_down_exps.weight", vec![inner, width, experts]),
            ]),
        }
        tensors
    }

    /// A model so small that tests can run it.
    #[cfg(test)]
    pub(crate) fn tiny() -> Self {
        Self {
            name: "tiny",
            width: 256,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_length: 64,
            inner: 512,
            vocabulary: 320,
            context: 64,
            ..LLAMA
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_32_bits() {
        for shape in Shape::all() {
            for (key, value) in shape.metadata(1 << 40) {
                assert!(matches!(value, Value::U32(_) | Value::F32(_)), "{}: {key} is {value:?}", shape.name);
            }
        }
    }

    /// Parameters as the models' cards and llama.cpp report them, in millions.
    #[test]
    fn shapes_have_the_published_numbers_of_parameters() {
        let published = [
            ("TinyLlama-1.1B", 1100.05),
            ("Llama-3.2-1B", 1235.81),
            ("Llama-2-7B", 6738.42),
            ("Llama-3-8B", 8030.26),
            ("Qwen2.5-0.5B", 494.03),
            ("Qwen2.5-1.5B", 1543.71),
            ("Qwen3-4B", 4022.47),
            ("Mistral-7B", 7241.73),
            ("Mixtral-8x7B", 46702.79),
        ];
        assert_eq!(published.len(), Shape::all().len());
        for (name, millions) in published {
            let shape = Shape::named(name).expect("known");
            let found: u64 = shape.tensors().iter().map(|(_, dims)| dims.iter().product::<u64>()).sum();
            assert!((found as f64 / 1e6 - millions).abs() < 0.006, "{name}: {found}");
        }
    }
}
