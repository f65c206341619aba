//! `woolly show`: what a model file holds, without loading it.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use woolly::{GGUFLoader, SamplingParams, Summary, TensorInfo, TypeShare, architectures};

use crate::failure::Failure;
use crate::numbers::{Bytes, Count};
use crate::output::Output;
use crate::source::Source;

/// Tokens of context for which the cache's size is told.
const CACHE_TOKENS: u64 = 1024;

/// Show what a model file holds.
#[derive(Debug, Args)]
#[command(after_help = "Example: woolly show model.gguf --tensors")]
pub(crate) struct Arguments {
    /// Model file in GGUF format.
    file: Option<PathBuf>,
    /// Model file in GGUF format.
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    model: Option<PathBuf>,
    /// List the tensors too.
    #[arg(long)]
    tensors: bool,
    /// Print the chat template, and nothing else unless with --json.
    #[arg(long)]
    template: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let loader = Source::new(self.file.clone().or(self.model.clone()), "show")?.open()?;
        let summary = Summary::of(&loader)?;
        if self.json {
            return output.json(&self.object(&summary, &loader));
        }
        if self.template {
            return output.line(summary.chat_template.as_deref().ok_or_else(no_template)?);
        }
        for (label, text) in rows(&summary) {
            output.line(&format!("{label:<14} {text}"))?;
        }
        let tensors = if self.tensors { loader.tensors() } else { &[] };
        tensors.iter().try_for_each(|tensor| output.line(&tensor_line(tensor)))
    }

    fn object(&self, summary: &Summary, loader: &GGUFLoader) -> Value {
        let mut object = summary_object(summary);
        if self.template {
            object["chat_template"] = json!(summary.chat_template);
        }
        if self.tensors {
            object["tensors"] = loader.tensors().iter().map(tensor_object).collect();
        }
        object
    }
}

fn no_template() -> Failure {
    Failure::usage("the model has no chat template", "leave --template out; `woolly run` completes text with this model")
}

/// The lines of the text form; what the file does not say is left out.
fn rows(summary: &Summary) -> Vec<(&'static str, String)> {
    let Summary { architecture, tokenizer, pre_tokenizer, vocab_size, .. } = summary;
    let size = format!("{}, GGUF version {}", Bytes(summary.file_bytes), summary.gguf_version);
    let template = if summary.chat_template.is_some() { "yes (see --template)" } else { "none" };
    let layers = summary.block_count.zip(summary.embedding_length);
    let pre = pre_tokenizer.as_ref().map(|pre| format!(" ({pre})")).unwrap_or_default();
    let tokens = vocab_size.map(|size| format!(", {size} tokens")).unwrap_or_default();
    let cache = |bytes: u64| format!("{} per {CACHE_TOKENS} tokens (F16)", Bytes(bytes.saturating_mul(CACHE_TOKENS)));
    let rows = [
        ("architecture", architecture.as_ref().map(|name| support(name, summary.supported))),
        ("name", summary.name.clone()),
        ("parameters", Some(format!("{} ({})", Count(summary.parameters), summary.parameters))),
        ("file", Some(size)),
        ("tensors", Some(summary.tensor_count.to_string())),
        ("types", Some(types(&summary.types)).filter(|text| !text.is_empty())),
        ("context", summary.context_length.map(|tokens| format!("{tokens} tokens"))),
        ("layers", layers.map(|(layers, width)| format!("{layers}, width {width}"))),
        ("tokenizer", tokenizer.as_ref().map(|kind| format!("{kind}{pre}{tokens}"))),
        ("chat template", Some(template.to_owned())),
        ("sampling", sampling(summary)),
        ("KV cache", summary.kv_bytes_per_token.map(cache)),
    ];
    rows.into_iter().filter_map(|(label, text)| Some((label, text?))).collect()
}

/// What the file recommends other than the default.
fn sampling(summary: &Summary) -> Option<String> {
    let (found, default) = (&summary.sampling, SamplingParams::default());
    let last_n = if found.repeat_last_n == usize::MAX { -1 } else { found.repeat_last_n as i64 };
    let rows = [
        ("temp", found.temperature != default.temperature, found.temperature.to_string()),
        ("top-k", found.top_k != default.top_k, found.top_k.to_string()),
        ("top-p", found.top_p != default.top_p, found.top_p.to_string()),
        ("min-p", found.min_p != default.min_p, found.min_p.to_string()),
        ("repeat-penalty", found.repeat_penalty != default.repeat_penalty, found.repeat_penalty.to_string()),
        ("repeat-last-n", found.repeat_last_n != default.repeat_last_n, last_n.to_string()),
    ];
    let told = rows.into_iter().filter(|(_, differs, _)| *differs).map(|(name, _, value)| format!("--{name} {value}"));
    Some(told.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
}

fn support(name: &str, supported: bool) -> String {
    match supported {
        true => name.to_owned(),
        false => format!("{name} (not supported; known are {})", architectures().join(", ")),
    }
}

fn types(shares: &[TypeShare]) -> String {
    let all: u64 = shares.iter().map(|share| share.bytes).sum();
    let percent = |bytes: u64| bytes as f64 * 100.0 / all.max(1) as f64;
    let share = |s: &TypeShare| format!("{} {:.1} % ({}, {})", s.ty, percent(s.bytes), Bytes(s.bytes), tensors(s.tensors));
    shares.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn tensors(count: usize) -> String {
    if count == 1 { "1 tensor".to_owned() } else { format!("{count} tensors") }
}

fn tensor_line(tensor: &TensorInfo) -> String {
    let dims = tensor.dims().iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
    format!("{:<8} {:>16} {:>10}  {}", tensor.ty(), dims, Bytes(tensor.byte_len()).to_string(), tensor.name())
}

fn tensor_object(tensor: &TensorInfo) -> Value {
    json!({
        "name": tensor.name(),
        "type": tensor.ty().name(),
        "dims": tensor.dims(),
        "bytes": tensor.byte_len(),
    })
}

fn summary_object(summary: &Summary) -> Value {
    let types = summary.types.iter().map(|s| json!({"type": s.ty.name(), "tensors": s.tensors, "bytes": s.bytes}));
    json!({
        "path": summary.path,
        "file_bytes": summary.file_bytes,
        "gguf_version": summary.gguf_version,
        "architecture": summary.architecture,
        "supported": summary.supported,
        "name": summary.name,
        "parameters": summary.parameters,
        "tensor_count": summary.tensor_count,
        "types": types.collect::<Vec<_>>(),
        "context_length": summary.context_length,
        "block_count": summary.block_count,
        "embedding_length": summary.embedding_length,
        "tokenizer": summary.tokenizer,
        "pre_tokenizer": summary.pre_tokenizer,
        "vocab_size": summary.vocab_size,
        "has_chat_template": summary.chat_template.is_some(),
        "sampling": sampling(summary),
        "kv_bytes_per_token": summary.kv_bytes_per_token,
    })
}
