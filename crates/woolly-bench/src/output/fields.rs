//! The fields of a row: llama-bench's, and ours.

use woolly_tensor::CacheType;

use crate::speed::Row;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A truth value; 0 or 1 outside of JSON.
    Bool(bool),
    /// A number with six decimals.
    Real(f64),
    /// Not measured.
    Absent,
}

/// A named value.
pub type Field = (&'static str, Value);

/// Returns llama-bench's fields in its order.
pub fn llama_bench_fields(row: &Row) -> Vec<Field> {
    use Value::{Bool, Integer, Real};
    let (time, rate) = (row.nanoseconds(), row.tokens_per_second());
    let count = |n: usize| Integer(n as i64);
    let whole = |x: f64| Integer(x.round() as i64);
    let [keys, values] = cache_names(row.case.cache).map(text);
    vec![
        ("build_commit", text(crate::BUILD_COMMIT)),
        ("build_number", Integer(crate::BUILD_NUMBER.parse().unwrap_or(0))),
        ("cpu_info", text(&row.machine.cpu)),
        ("gpu_info", text("")),
        ("backends", text("CPU")),
        ("model_filename", text(&row.model.filename)),
        ("model_type", text(&row.model.kind)),
        ("model_size", Integer(row.model.bytes as i64)),
        ("model_n_params", Integer(row.model.parameters as i64)),
        ("n_batch", count(row.case.batch)),
        ("n_ubatch", count(row.case.micro_batch)),
        ("n_threads", count(row.case.threads)),
        ("cpu_mask", text("0x0")),
        ("cpu_strict", Bool(false)),
        ("poll", Integer(50)),
        ("type_k", keys),
        ("type_v", values),
        ("n_gpu_layers", Integer(-1)),
        ("n_cpu_moe", Integer(0)),
        ("split_mode", text("layer")),
        ("main_gpu", Integer(0)),
        ("no_kv_offload", Bool(false)),
        ("flash_attn", Integer(-1)),
        ("devices", text("auto")),
        ("tensor_split", text("0.00")),
        ("tensor_buft_overrides", text("none")),
        ("load_mode", text("auto")),
        ("lazy_mode", text("auto")),
        ("embeddings", Bool(false)),
        ("no_op_offload", Integer(0)),
        ("no_host", Bool(false)),
        ("repack", Bool(false)),
        ("fit_target", Integer(0)),
        ("fit_min_ctx", Integer(0)),
        ("n_prompt", count(row.case.prompt)),
        ("n_gen", count(row.case.generate)),
        ("n_depth", count(row.case.depth)),
        ("test_time", text(&row.time())),
        ("avg_ns", whole(time.mean)),
        ("stddev_ns", whole(time.stddev)),
        ("avg_ts", Real(rate.mean)),
        ("stddev_ts", Real(rate.stddev)),
    ]
}

/// Returns the fields that llama-bench does not have.
pub fn extra_fields(row: &Row) -> Vec<Field> {
    use Value::{Absent, Integer, Real};
    let (time, rate) = (row.nanoseconds(), row.tokens_per_second());
    let real = |x: Option<f64>| x.map_or(Absent, Real);
    let peak = row.ceiling.as_ref().and_then(crate::Ceiling::arithmetic);
    let read = row.ceiling.as_ref().and_then(|ceiling| ceiling.read);
    let rival = row.comparison();
    let cache = |level: usize| row.machine.caches.get(level).map_or(Absent, |&bytes| Integer(bytes as i64));
    vec![
        ("engine", text(concat!("woolly ", env!("CARGO_PKG_VERSION")))),
        ("isa", text(row.machine.level.name())),
        ("l1_bytes", cache(0)),
        ("l2_bytes", cache(1)),
        ("l3_bytes", cache(2)),
        ("n_seq", Integer(row.case.sequences as i64)),
        ("median_ns", Integer(time.median.round() as i64)),
        ("min_ns", Integer(time.min.round() as i64)),
        ("median_ts", Real(rate.median)),
        ("max_ts", Real(rate.max)),
        ("read_gbs", Real(row.bandwidth() / 1e9)),
        ("read_ceiling_gbs", real(read.map(|read| read.best / 1e9))),
        ("read_mean_gbs", real(read.map(|read| read.mean / 1e9))),
        ("read_share", real(row.bandwidth_share())),
        ("tflops", Real(row.operations() / 1e12)),
        ("tflops_ceiling", real(peak.map(|(_, peak)| peak / 1e12))),
        ("tflops_ceiling_unit", peak.map_or(Absent, |(unit, _)| text(unit.name()))),
        ("tflops_share", real(row.operations_share().map(|(_, share)| share))),
        ("vs_engine", row.rival.as_ref().map_or(Absent, |rival| text(&rival.engine))),
        ("vs_avg_ts", real(rival.map(|(rate, _)| rate.mean))),
        ("vs_stddev_ts", real(rival.map(|(rate, _)| rate.stddev))),
        ("vs_median_ts", real(rival.map(|(rate, _)| rate.median))),
        ("vs_ratio_median", real(rival.map(|(_, ratio)| ratio.median))),
        ("vs_ratio_min", real(rival.map(|(_, ratio)| ratio.min))),
        ("vs_ratio_max", real(rival.map(|(_, ratio)| ratio.max))),
    ]
}

/// llama.cpp's names of how keys and values are stored: `-ctk` and `-ctv`.
pub(crate) fn cache_names(cache: CacheType) -> [&'static str; 2] {
    match cache {
        CacheType::F32 => ["f32"; 2],
        CacheType::F16 => ["f16"; 2],
        CacheType::Q8 => ["q8_0"; 2],
        CacheType::Q8Q4 => ["q8_0", "q4_0"],
        // llama.cpp has no word for what is newer than this table.
        other => [other.name(); 2],
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
