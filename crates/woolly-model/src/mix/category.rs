//! What a tensor is for, told by its name, and whether it is ever quantised.

use super::TensorFacts;

/// The parts of a model that the mixes tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Output,
    Embedding,
    /// Values, also fused with queries and keys or in latent form.
    Value,
    Key,
    Query,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Other,
}

/// The first part found in a name decides; those of the feed-forward network include the tensors of experts.
const PARTS: &[(&str, Category)] = &[
    ("attn_qkv.weight", Category::Value),
    ("attn_kv_b.weight", Category::Value),
    ("attn_v.weight", Category::Value),
    ("attn_k.weight", Category::Key),
    ("attn_q.weight", Category::Query),
    ("attn_output.weight", Category::AttentionOutput),
    ("ffn_up", Category::Up),
    ("ffn_gate", Category::Gate),
    ("ffn_down", Category::Down),
];

/// Parts of the names of weights that are small or sensitive and keep their type: routers, positions, recurrent state.
const NEVER: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_",
    "attn_rel_b.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
];

impl Category {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Self::Embedding,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Self::Other, |&(_, category)| category),
        }
    }
}

/// Returns whether a tensor is one that mixes give a type: a matrix, or a stack of them, that is large enough to matter
/// and tolerates it. All others keep the type they have.
pub fn is_quantisable(tensor: &TensorFacts<'_>) -> bool {
    let matrix = tensor.dims.iter().skip(1).any(|&size| size > 1);
    matrix && tensor.name.ends_with("weight") && !NEVER.iter().any(|part| tensor.name.contains(part))
}

/// Whether a tensor turns tokens into vectors or back.
pub(super) fn is_vocabulary(name: &str) -> bool {
    matches!(Category::of(name), Category::Output | Category::Embedding)
}

/// Returns the layer that a tensor belongs to, if it names one.
pub(super) fn layer(name: &str) -> Option<u64> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_quant::TensorType;

    #[test]
    fn names_tell_the_category() {
        let cases = [
            ("output.weight", Category::Output),
            ("blk.3.attn_output.weight", Category::AttentionOutput),
            ("per_layer_token_embd.weight", Category::Embedding),
            ("blk.0.attn_qkv.weight", Category::Value),
            ("blk.0.attn_kv_b.weight", Category::Value),
            ("blk.0.attn_kv_a_mqa.weight", Category::Other),
            ("blk.0.attn_k_b.weight", Category::Other), // per head, not the keys as a whole
            ("blk.0.ffn_down_shexp.weight", Category::Down),
            ("blk.0.ffn_gate_exps.weight", Category::Gate),
            ("blk.0.ssm_out.weight", Category::Other),
        ];
        for (name, category) in cases {
            assert_eq!(Category::of(name), category, "{name}");
        }
        assert_eq!((layer("blk.12.x"), layer("blk.x.y"), layer("output.weight")), (Some(12), None, None));
    }

    #[test]
    fn what_is_small_or_sensitive_is_never_quantised() {
        let cases: [(&str, &[u64], bool); 12] = [
            ("blk.0.attn_q.weight", &[64, 64], true),
            ("blk.0.attn_q.weight", &[64, 1], false), // a row is no matrix
            ("blk.0.ffn_up_exps.weight", &[64, 64, 4], true),
            ("blk.0.attn_q.bias", &[64, 64], false),
            ("blk.0.attn_norm.weight", &[64, 64], false),
            ("blk.0.ffn_gate_inp.weight", &[64, 4], false),
            ("blk.0.ssm_conv1d.weight", &[4, 64], false),
            ("blk.0.ssm_out.weight", &[64, 64], true),
            ("blk.0.time_mix_w1.weight", &[64, 64], false),
            ("position_embd.weight", &[64, 64], false),
            ("token_types.weight", &[64, 2], false),
            ("blk.0.altup_router.weight", &[64, 4], false),
        ];
        for (name, dims, expected) in cases {
            assert_eq!(is_quantisable(&TensorFacts { name, dims, ty: TensorType::F32 }), expected, "{name} {dims:?}");
        }
    }
}
