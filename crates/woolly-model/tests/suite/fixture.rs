//! Tiny models built in code, with deterministic values and every part of them open to change.

use std::collections::BTreeMap;

use woolly_gguf::{GGUFLoader, GGUFWriter, SharedBytes, Value};
use woolly_quant::TensorType;

/// What a model to be built looks like; the naive implementation computes from the same description.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) key_length: usize,
    pub(crate) value_length: usize,
    pub(crate) inner: usize,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    pub(crate) epsilon: f32,
    pub(crate) rope: RopeSpec,
    /// Whether the output matrix is the embedding table.
    pub(crate) tied: bool,
    /// Biases of queries, keys, values and of the attention output.
    pub(crate) biases: [bool; 4],
    pub(crate) head_norms: bool,
    pub(crate) experts: Option<ExpertSpec>,
}

#[derive(Clone, Debug)]
pub(crate) struct RopeSpec {
    pub(crate) dims: usize,
    pub(crate) base: f32,
    /// Pairs are halves of a head rather than neighbours.
    pub(crate) halves: bool,
    pub(crate) scaling: Scaling,
    /// Whether there is a tensor of frequency divisors.
    pub(crate) divisors: bool,
    pub(crate) attn_factor: f32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Scaling {
    Absent,
    /// Type `none`, to be left alone whatever the factor says.
    None(f32),
    Linear(f32),
    /// `rope.scale_linear` of older files.
    OldLinear(f32),
    Yarn {
        factor: f32,
        original: usize,
        log_multiplier: f32,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct ExpertSpec {
    pub(crate) count: usize,
    pub(crate) used: usize,
    pub(crate) inner: usize,
    pub(crate) renormalise: bool,
    /// Inner width of the expert that every row uses.
    pub(crate) shared: Option<usize>,
    /// Experts are stored one by one, as early files have them.
    pub(crate) one_by_one: bool,
    pub(crate) scale: f32,
}

impl Spec {
    /// A dense model of two layers in which no two sizes are equal that could be confused.
    pub(crate) fn new(architecture: &'static str) -> Self {
        let rope = RopeSpec {
            dims: 6,
            base: 10_000.0,
            halves: architecture != "llama",
            scaling: Scaling::Absent,
            divisors: false,
            attn_factor: 1.0,
        };
        Self {
            architecture,
            layers: 2,
            width: 20,
            heads: 4,
            kv_heads: 2,
            key_length: 6,
            value_length: 8,
            inner: 28,
            vocab: 37,
            context: 128,
            epsilon: 1e-5,
            rope,
            tied: false,
            biases: [false; 4],
            head_norms: false,
            experts: None,
        }
    }
}

/// A model file in the making.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// Metadata by full key.
    pub(crate) keys: BTreeMap<String, Value>,
    /// Dimensions (fastest-running first) and values by name.
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Bytes of those tensors that are not stored as `f32`; their values above are the decoded ones.
    stored: BTreeMap<String, (TensorType, Vec<u8>)>,
}

impl Fixture {
    pub(crate) fn new(spec: &Spec) -> Self {
        let mut fixture = Self { keys: BTreeMap::new(), tensors: BTreeMap::new(), stored: BTreeMap::new() };
        fixture.add_keys(spec);
        fixture.add_rope_keys(spec);
        fixture.add_global_tensors(spec);
        for layer in 0..spec.layers {
            fixture.add_attention(spec, layer);
            match &spec.experts {
                None => fixture.add_dense(spec, layer),
                Some(experts) => fixture.add_experts(spec, experts, layer),
            }
        }
        fixture
    }

    /// Sets the key `<architecture>.<key>`.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let full = format!("{}.{key}", self.architecture());
        self.keys.insert(full, value.into());
        self
    }

    /// Removes the key `<architecture>.<key>`.
    pub(crate) fn unset(&mut self, key: &str) -> &mut Self {
        let full = format!("{}.{key}", self.architecture());
        assert!(self.keys.remove(&full).is_some(), "there is no {full}");
        self
    }

    /// Opens the file in memory.
    pub(crate) fn open(&self) -> GGUFLoader {
        let mut writer = GGUFWriter::new();
        for (key, value) in &self.keys {
            writer.set(key, value.clone());
        }
        for (name, (dims, values)) in &self.tensors {
            let dims: Vec<u64> = dims.iter().map(|&dim| dim as u64).collect();
            match self.stored.get(name) {
                Some((ty, bytes)) => writer.tensor(name, &dims, *ty, bytes),
                None => writer.tensor(
                    name,
                    &dims,
                    TensorType::F32,
                    values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
                ),
            };
        }
        let bytes = writer.to_bytes().expect("the fixture can be written");
        GGUFLoader::from_bytes(SharedBytes::from_vec(bytes)).expect("the fixture is a well-formed file")
    }

    /// Adds a tensor of values in `offset ± spread` that depend on nothing but its name.
    pub(crate) fn tensor(&mut self, name: &str, dims: &[usize], offset: f32, spread: f32) {
        let mut state = name.bytes().fold(0x9E37_79B9_7F4A_7C15, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23)
        });
        let mut uniform = || {
            // Marsaglia's xorshift64; the top 24 bits are exact in f32.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let values = (0..dims.iter().product()).map(|_| offset + spread * uniform()).collect();
        self.tensors.insert(name.to_owned(), (dims.to_vec(), values));
    }

    /// Stores every matrix as `ty`; the rows must be whole blocks.
    pub(crate) fn quantised(mut self, ty: TensorType) -> Self {
        for (name, (dims, values)) in self.tensors.iter_mut().filter(|(_, (dims, _))| dims.len() > 1) {
            let row = ty.row_bytes(dims[0]).unwrap_or_else(|| panic!("{name}: rows of {} for {ty}", dims[0]));
            let mut bytes = vec![0; values.len() / dims[0] * row];
            ty.encode(values, &mut bytes).expect("the type has an encoder");
            ty.decode(&bytes, values).expect("the bytes were just encoded");
            self.stored.insert(name.clone(), (ty, bytes));
        }
        self
    }

    fn architecture(&self) -> &str {
        self.keys["general.architecture"].as_str().expect("a name")
    }

    fn add_keys(&mut self, spec: &Spec) {
        self.keys.insert("general.architecture".to_owned(), spec.architecture.into());
        self.keys.insert("general.name".to_owned(), "fixture".into());
        let tokens = (0..spec.vocab).map(|id| format!("t{id}"));
        self.keys.insert("tokenizer.ggml.tokens".to_owned(), Value::strings(tokens));
        let sizes = [
            ("block_count", spec.layers),
            ("context_length", spec.context),
            ("embedding_length", spec.width),
            ("feed_forward_length", spec.inner),
            ("attention.head_count", spec.heads),
            ("attention.head_count_kv", spec.kv_heads),
            ("attention.key_length", spec.key_length),
            ("attention.value_length", spec.value_length),
        ];
        for (key, size) in sizes {
            self.set(key, size as u32);
        }
        self.set("attention.layer_norm_rms_epsilon", spec.epsilon);
        if let Some(experts) = &spec.experts {
            self.set("expert_count", experts.count as u32);
            self.set("expert_used_count", experts.used as u32);
            self.set("expert_feed_forward_length", experts.inner as u32);
            self.set("expert_weights_scale", experts.scale);
            if let Some(inner) = experts.shared {
                self.set("expert_shared_feed_forward_length", inner as u32);
            }
        }
    }

    fn add_rope_keys(&mut self, spec: &Spec) {
        let rope = &spec.rope;
        self.set("rope.dimension_count", rope.dims as u32).set("rope.freq_base", rope.base);
        self.set("rope.scaling.attn_factor", rope.attn_factor);
        match rope.scaling {
            Scaling::Absent => {}
            Scaling::None(factor) => {
                self.set("rope.scaling.type", "none").set("rope.scaling.factor", factor);
            }
            Scaling::Linear(factor) => {
                self.set("rope.scaling.type", "linear").set("rope.scaling.factor", factor);
            }
            Scaling::OldLinear(factor) => {
                self.set("rope.scale_linear", factor);
            }
            Scaling::Yarn { factor, original, log_multiplier } => {
                self.set("rope.scaling.type", "yarn").set("rope.scaling.factor", factor);
                self.set("rope.scaling.original_context_length", original as u32);
                self.set("rope.scaling.yarn_log_multiplier", log_multiplier);
            }
        }
    }

    fn add_global_tensors(&mut self, spec: &Spec) {
        self.tensor("token_embd.weight", &[spec.width, spec.vocab], 0.0, 1.0);
        self.tensor("output_norm.weight", &[spec.width], 1.0, 0.3);
        if !spec.tied {
            self.matrix("output.weight", &[spec.width, spec.vocab]);
        }
        if spec.rope.divisors {
            self.tensor("rope_freqs.weight", &[spec.rope.dims / 2], 4.0, 3.0);
        }
    }

    fn add_attention(&mut self, spec: &Spec, layer: usize) {
        let Spec { width, heads, kv_heads, key_length, value_length, .. } = *spec;
        self.tensor(&format!("blk.{layer}.attn_norm.weight"), &[width], 1.0, 0.3);
        let maps = [
            ("attn_q", [width, heads * key_length]),
            ("attn_k", [width, kv_heads * key_length]),
            ("attn_v", [width, kv_heads * value_length]),
            ("attn_output", [heads * value_length, width]),
        ];
        for ((name, dims), bias) in maps.into_iter().zip(spec.biases) {
            self.matrix(&format!("blk.{layer}.{name}.weight"), &dims);
            if bias {
                self.tensor(&format!("blk.{layer}.{name}.bias"), &dims[1..], 0.0, 0.5);
            }
        }
        if spec.head_norms {
            self.tensor(&format!("blk.{layer}.attn_q_norm.weight"), &[key_length], 1.0, 0.3);
            self.tensor(&format!("blk.{layer}.attn_k_norm.weight"), &[key_length], 1.0, 0.3);
        }
        self.tensor(&format!("blk.{layer}.ffn_norm.weight"), &[width], 1.0, 0.3);
    }

    fn add_dense(&mut self, spec: &Spec, layer: usize) {
        self.matrix(&format!("blk.{layer}.ffn_gate.weight"), &[spec.width, spec.inner]);
        self.matrix(&format!("blk.{layer}.ffn_up.weight"), &[spec.width, spec.inner]);
        self.matrix(&format!("blk.{layer}.ffn_down.weight"), &[spec.inner, spec.width]);
    }

    fn add_experts(&mut self, spec: &Spec, experts: &ExpertSpec, layer: usize) {
        let ExpertSpec { count, inner, .. } = *experts;
        self.matrix(&format!("blk.{layer}.ffn_gate_inp.weight"), &[spec.width, count]);
        for (name, dims) in [("gate", [spec.width, inner]), ("up", [spec.width, inner]), ("down", [inner, spec.width])]
        {
            if experts.one_by_one {
                (0..count).for_each(|e| self.matrix(&format!("blk.{layer}.ffn_{name}.{e}.weight"), &dims));
            } else {
                self.matrix(&format!("blk.{layer}.ffn_{name}_exps.weight"), &[dims[0], dims[1], count]);
            }
        }
        if let Some(inner) = experts.shared {
            self.tensor(&format!("blk.{layer}.ffn_gate_inp_shexp.weight"), &[spec.width], 0.0, 0.4);
            self.matrix(&format!("blk.{layer}.ffn_gate_shexp.weight"), &[spec.width, inner]);
            self.matrix(&format!("blk.{layer}.ffn_up_shexp.weight"), &[spec.width, inner]);
            self.matrix(&format!("blk.{layer}.ffn_down_shexp.weight"), &[inner, spec.width]);
        }
    }

    /// Values that keep the size of what they are multiplied with.
    fn matrix(&mut self, name: &str, dims: &[usize]) {
        self.tensor(name, dims, 0.0, (3.0 / dims[0] as f32).sqrt());
    }
}
