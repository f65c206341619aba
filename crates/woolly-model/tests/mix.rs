//! Mixes: the recorded choices of llama.cpp for real models, files that it made, and each rule on models made up here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use woolly_gguf::GGUFLoader;
use woolly_model::mix::{Mix, ModelFacts, TensorFacts};
use woolly_quant::TensorType;
use woolly_testdata::{files_ending_in, folder, skip};

/// Recorded choices: per mix the usual type and the tensors that differ from it.
///
/// What the record leaves out is derived from it: the tensors are all that differ anywhere, a model without
/// `output.weight` among them is tied, and a row is a multiple of 256 or 32 if any mix gave it a type with such blocks.
struct Record {
    facts: ModelFacts,
    mixes: Vec<(Mix, TensorType, BTreeMap<String, TensorType>)>,
    /// The tensors of the mix that lists the most, as listed.
    order: Vec<String>,
}

impl Record {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("readable");
        let (comments, rest): (Vec<&str>, Vec<&str>) =
            text.lines().filter(|line| !line.trim().is_empty()).partition(|line| line.starts_with('#'));
        let mut record = Self { facts: facts(&comments), mixes: Vec::new(), order: Vec::new() };
        let sections = rest.split(|line| line.starts_with('[')).max_by_key(|section| section.len());
        let name = |line: &&str| line.split(' ').next().unwrap_or_default().to_owned();
        record.order = sections.unwrap_or_default().iter().map(name).collect();
        for line in rest {
            let (name, ty) = line.split_once(' ').expect("a name and a type");
            let ty = ty.trim().parse().expect("a tensor type");
            match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                Some(mix) => record.mixes.push((mix.parse().expect("a mix"), ty, BTreeMap::new())),
                None => assert_eq!(record.mixes.last_mut().expect("a mix").2.insert(name.to_owned(), ty), None),
            }
        }
        record
    }

    /// Whether layers follow each other. llama.cpp's quantiser sorts them, as the mixes do; a record of a model whose
    /// file has another order was counted in that order.
    fn is_in_layer_order(&self) -> bool {
        let layer = |name: &String| name.strip_prefix("blk.")?.split_once('.')?.0.parse::<u32>().ok();
        self.order.iter().filter_map(layer).is_sorted()
    }

    /// Names and dimensions of the tensors.
    fn tensors(&self) -> Vec<(String, [u64; 3])> {
        let names: BTreeSet<&String> = self.mixes.iter().flat_map(|(.., special)| special.keys()).collect();
        names.into_iter().map(|name| (name.clone(), [self.row(name), 512, self.depth(name)])).collect()
    }

    fn row(&self, name: &str) -> u64 {
        let given = self.mixes.iter().map(|(_, usual, special)| special.get(name).unwrap_or(usual));
        given.map(|ty| ty.block_elements() as u64).max().expect("a mix")
    }

    fn depth(&self, name: &str) -> u64 {
        let per_head = ["attn_k_b.", "attn_v_b."].iter().any(|part| name.contains(part));
        let depth = if name.contains("_exps") {
            self.facts.experts
        } else if per_head {
            self.facts.heads
        } else {
            1
        };
        depth.into()
    }
}

fn facts(comments: &[&str]) -> ModelFacts {
    let text = comments.join(" ").to_lowercase();
    let number = |key: &str| {
        let found = text.split_once(&format!("{key}=")).map(|(_, rest)| rest);
        let digits = found.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
        digits.map_or(0, |digits| digits.parse().expect("a number"))
    };
    let known = ["llama", "falcon"].into_iter().find(|name| text.contains(name));
    ModelFacts {
        architecture: known.unwrap_or("another").to_owned(),
        block_count: number("n_layer"),
        heads: number("n_head"),
        kv_heads: number("n_head_kv"),
        experts: number("n_expert"),
    }
}

#[test]
fn the_types_are_those_recorded_of_llama_cpp() {
    let test = "the_types_are_those_recorded_of_llama_cpp";
    let Some(dir) = folder(test, "gguf/quant-mix") else { return };
    let mut compared = 0;
    for path in files_ending_in(&dir, ".schema.txt") {
        let record = Record::read(&path);
        if !record.is_in_layer_order() {
            skip(test, &format!("{} is not in the order of layers", path.display()));
            continue;
        }
        let tensors = record.tensors();
        let tensors: Vec<TensorFacts<'_>> =
            tensors.iter().map(|(name, dims)| TensorFacts { name, dims, ty: TensorType::F32 }).collect();
        for (mix, usual, special) in &record.mixes {
            assert_eq!(mix.base_type(), *usual, "{mix}");
            let types = mix.assign(&record.facts, &tensors, false);
            for (tensor, ty) in tensors.iter().zip(types) {
                let expected = *special.get(tensor.name).unwrap_or(usual);
                assert_eq!(ty, expected, "{} [{mix}] {}", path.display(), tensor.name);
                compared += 1;
            }
        }
        println!("{}: {} tensors, {} mixes", path.display(), tensors.len(), record.mixes.len());
    }
    println!("{compared} choices compared");
    assert!(compared > 0, "{} holds no records", dir.display());
}

#[test]
fn files_of_llama_cpp_have_the_types_that_their_mix_assigns() {
    let Some(dir) = folder("files_of_llama_cpp_have_the_types_that_their_mix_assigns", "models") else { return };
    let mut compared = 0;
    for dir in files_ending_in(&dir, "").iter().filter(|path| path.is_dir()) {
        for path in files_ending_in(dir, ".gguf") {
            let loader = GGUFLoader::open(&path).expect("a valid file");
            let Some(number) = loader.metadata().u32("general.file_type").expect("an integer") else { continue };
            let mix: Mix = number.to_string().parse().expect("a known mix");
            let facts = ModelFacts::read(loader.metadata()).expect("the facts");
            let found: Vec<TensorType> = loader.tensors().iter().map(|tensor| tensor.ty()).collect();
            assert_eq!(mix.assign(&facts, &TensorFacts::of(&loader), false), found, "{} {mix}", path.display());
            compared += 1;
        }
    }
    println!("{compared} files compared");
    assert!(compared > 0, "{} holds no models", dir.display());
}

/// A model with the usual tensors in each layer, in an order that differs from that of the layers.
struct Made {
    facts: ModelFacts,
    names: Vec<String>,
}

impl Made {
    fn new(architecture: &str, layers: u32, heads: u32, kv_heads: u32, experts: u32) -> Self {
        let stack = if experts > 0 { "_exps" } else { "" };
        let feed = ["ffn_down", "ffn_up", "ffn_gate"].map(|part| format!("{part}{stack}"));
        let attention = ["attn_q", "attn_k", "attn_v", "attn_output", "attn_norm"].map(str::to_owned);
        let parts: Vec<String> = attention.into_iter().chain(feed).collect();
        let blocks = (0..layers).rev().flat_map(|i| parts.iter().map(move |part| format!("blk.{i}.{part}.weight")));
        let names = ["output.weight", "token_embd.weight"].map(str::to_owned).into_iter().chain(blocks).collect();
        let architecture = architecture.to_owned();
        Self { facts: ModelFacts { architecture, block_count: layers, heads, kv_heads, experts }, names }
    }

    fn llama(layers: u32) -> Self {
        Self::new("llama", layers, 32, 8, 0)
    }

    /// The types in rows of 1024 elements.
    fn types(&self, mix: Mix, importance: bool) -> HashMap<&str, TensorType> {
        let dims = [1024, 64];
        let facts = |name| TensorFacts { name, dims: &dims, ty: TensorType::F32 };
        let tensors: Vec<TensorFacts<'_>> = self.names.iter().map(|name| facts(name)).collect();
        self.names.iter().map(String::as_str).zip(mix.assign(&self.facts, &tensors, importance)).collect()
    }

    /// The layers whose `part` has the type `ty`.
    fn layers_with(&self, mix: Mix, importance: bool, part: &str, ty: TensorType) -> Vec<u32> {
        let types = self.types(mix, importance);
        let has = |i: &u32| types.get(format!("blk.{i}.{part}.weight").as_str()) == Some(&ty);
        (0..self.facts.block_count).filter(has).collect()
    }
}

#[test]
fn the_layers_that_deserve_more_bits() {
    use TensorType as T;
    let ends_and_thirds: &[u32] = &[0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
    let model = Made::llama(32);
    let cases: [(Mix, bool, &str, T, &[u32]); 9] = [
        (Mix::Q4_K_M, false, "attn_v", T::Q6_K, ends_and_thirds),
        (Mix::Q4_K_M, false, "ffn_down", T::Q6_K, ends_and_thirds),
        (Mix::Q5_K_M, false, "ffn_down", T::Q6_K, ends_and_thirds),
        (Mix::Q4_K_S, false, "ffn_down", T::Q5_K, &[0, 1, 2, 3]),
        (Mix::Q3_K_M, false, "attn_v", T::Q5_K, &[0, 1]),
        (Mix::Q3_K_M, false, "ffn_down", T::Q5_K, &[0, 1]),
        (Mix::Q4_0, false, "ffn_down", T::Q4_1, &[]),
        (Mix::Q4_0, true, "ffn_down", T::Q4_1, &[0, 1, 2, 3]),
        (Mix::IQ4_XS, true, "ffn_down", T::Q5_K, &[]),
    ];
    for (mix, importance, part, ty, layers) in cases {
        assert_eq!(model.layers_with(mix, importance, part, ty), layers, "{mix} {part}");
    }
}

#[test]
fn architectures_and_experts_with_rules_of_their_own() {
    use TensorType as T;
    let large = Made::new("llama", 80, 64, 8, 0);
    let other = Made::new("sheep", 80, 64, 8, 0);
    let falcon = Made::new("falcon", 32, 71, 1, 0);
    let eight = Made::new("llama", 32, 32, 8, 8);
    let cases: [(&Made, Mix, &str, T); 18] = [
        (&large, Mix::Q4_K_S, "blk.40.attn_v.weight", T::Q5_K),
        (&large, Mix::Q3_K_S, "blk.40.attn_v.weight", T::Q5_K),
        (&other, Mix::Q3_K_S, "blk.40.attn_v.weight", T::Q3_K),
        (&falcon, Mix::Q4_K_M, "output.weight", T::Q8_0),
        (&falcon, Mix::Q4_K_M, "blk.1.ffn_down.weight", T::Q6_K),
        (&falcon, Mix::Q4_K_M, "blk.2.ffn_down.weight", T::Q5_K),
        (&falcon, Mix::Q4_K_M, "blk.4.ffn_down.weight", T::Q4_K),
        (&falcon, Mix::Q4_K_S, "blk.0.ffn_down.weight", T::Q4_K),
        (&falcon, Mix::Q3_K_M, "blk.4.ffn_down.weight", T::Q3_K),
        (&falcon, Mix::Q3_K_L, "blk.4.attn_output.weight", T::Q4_K),
        (&falcon, Mix::Q2_K, "blk.4.attn_output.weight", T::Q2_K),
        (&eight, Mix::Q4_K_M, "blk.4.attn_k.weight", T::Q8_0),
        (&eight, Mix::Q4_K_M, "blk.4.attn_output.weight", T::Q5_K),
        (&eight, Mix::Q5_K_M, "blk.4.attn_output.weight", T::Q5_K), // its own type
        (&eight, Mix::Q3_K_L, "blk.4.attn_output.weight", T::Q3_K),
        (&eight, Mix::IQ3_M, "blk.6.ffn_down_exps.weight", T::Q4_K),
        (&eight, Mix::IQ2_XS, "blk.4.attn_k.weight", T::Q4_K),
        (&eight, Mix::IQ2_XS, "blk.4.attn_output.weight", T::Q5_K),
    ];
    for (model, mix, name, ty) in cases {
        assert_eq!(model.types(mix, false).get(name), Some(&ty), "{} {mix} {name}", model.facts.architecture);
    }
}

#[test]
fn output_embeddings_and_what_is_never_quantised() {
    use TensorType as T;
    let model = Made::llama(8);
    let mut tied = Made::llama(8);
    tied.names.retain(|name| name != "output.weight");
    let cases: [(&Made, Mix, &str, T); 9] = [
        (&model, Mix::Q4_0, "output.weight", T::Q6_K),
        (&model, Mix::Q4_0, "token_embd.weight", T::Q4_0),
        (&tied, Mix::Q4_0, "token_embd.weight", T::Q6_K),
        (&tied, Mix::IQ2_XS, "token_embd.weight", T::Q5_K),
        (&model, Mix::Q8_0, "output.weight", T::Q8_0),
        (&model, Mix::F16, "output.weight", T::F16),
        (&model, Mix::TQ2_0, "token_embd.weight", T::Q4_K),
        (&model, Mix::MXFP4_MOE, "blk.0.ffn_up.weight", T::Q8_0), // no experts here
        (&model, Mix::Q4_K_M, "blk.0.attn_norm.weight", T::F32),
    ];
    for (model, mix, name, ty) in cases {
        assert_eq!(model.types(mix, false).get(name), Some(&ty), "{mix} {name}");
    }
}

#[test]
fn absurd_models_get_types_too() {
    let dims = [0, u64::MAX];
    let names = ["blk.99999999999999999999.ffn_down.weight", "blk.-1.attn_v.weight", "", "weight", "output.weight"];
    let tensors = names.map(|name| TensorFacts { name, dims: &dims, ty: TensorType::I8 });
    for block_count in [0, 1, u32::MAX] {
        let facts =
            ModelFacts { block_count, heads: 1, kv_heads: u32::MAX, experts: u32::MAX, ..ModelFacts::default() };
        for mix in Mix::ALL {
            assert_eq!(mix.assign(&facts, &tensors, false).len(), tensors.len());
        }
    }
    assert!(Mix::Q4_K_M.assign(&ModelFacts::default(), &[], true).is_empty());
}
