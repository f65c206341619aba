//! What the arithmetic costs: how far predictions are from those of single precision on the same weights, for each type of
//! weights, way of computing, cache and instruction set.
//!
//! The model is the built-in one, its feed-forward made four times as wide by repeating it and dividing what it adds up, which
//! changes nothing but the sizes: matrices are then too large for the kernels of small ones, which keep activations exact.

#![cfg(feature = "lamb")]

use woolly::{CacheType, CompareOptions, CpuFeatures, Device, GGUFLoader, GGUFWriter, Model, TensorType as T, Value};

const TEXT: &str = "Once upon a time there was a little lamb who lived on a hill with her mother. Every morning she ran down to \
the river to drink, and every evening she came back before the sun went down. One day the river was gone. The lamb looked \
left and right, but there were only stones.";

const WINDOW: usize = 48;

/// What products with activations of eight bits may cost, in nats a token.
///
/// Activations rounded to a 127th of the largest of 32 are off by 0.7 % of their size (rms, the largest being three times the
/// rms: 3 / 127 / √12). The last matrix and what reaches it from those before are off by about that much each, so logits that
/// spread by 4 to 5 are off by δ = 0.045, which costs about δ²/2 = 1e-3; a single window of text may be twice as bad. A kernel
/// that drops a scale, a minimum or a tail is off by much more than rounding is.
const ROUNDED: f64 = 2e-3;

/// Nothing is rounded but keys and values, to half precision (2⁻¹² of their size), and what tiles multiply, to bfloat16 (2⁻⁹).
const EXACT: f64 = 1e-4;

/// Four bits of a value cost (127 / 8)² times what eight cost, and eight are bound by [`ROUNDED`].
const FOUR_BITS: f64 = 252.0 * ROUNDED;

/// Tensor names, dimensions and values of the widened model.
struct Wide {
    file: GGUFLoader,
    tensors: Vec<(String, [u64; 2], Vec<f32>)>,
}

impl Wide {
    const TIMES: usize = 4;

    fn new() -> Self {
        let file = woolly::lamb::open().expect("a valid file");
        let tensors = file.tensors().iter().map(|info| {
            let mut values = vec![0.0; info.elements() as usize];
            info.ty().decode(info.bytes(), &mut values).expect("whole blocks");
            let (columns, rows) = (info.dims()[0] as usize, info.dims().get(1).map_or(1, |&rows| rows as usize));
            let name = info.name().to_owned();
            if name.contains("ffn_gate") || name.contains("ffn_up") {
                return (name, [columns as u64, (rows * Self::TIMES) as u64], values.repeat(Self::TIMES));
            }
            if name.contains("ffn_down") {
                let share = |row: &[f32]| row.iter().map(|x| x / Self::TIMES as f32).collect::<Vec<_>>();
                let wide = values.chunks(columns).flat_map(|row| share(row).repeat(Self::TIMES));
                return (name, [(columns * Self::TIMES) as u64, rows as u64], wide.collect());
            }
            (name, [columns as u64, rows as u64], values)
        });
        let tensors = tensors.collect();
        Self { file, tensors }
    }

    /// Returns the model with matrices of type `ty`, and the same with what they hold in single precision.
    fn pair(&self, ty: T) -> [GGUFLoader; 2] {
        let mut writers = [GGUFWriter::new(), GGUFWriter::new()];
        for writer in &mut writers {
            writer.extend(self.file.metadata());
            let width =
                self.file.metadata().get("llama.feed_forward_length").and_then(Value::as_integer).expect("a width");
            writer.set("llama.feed_forward_length", width as u32 * Self::TIMES as u32);
        }
        let single = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        for (name, [columns, rows], values) in &self.tensors {
            let dims = if *rows == 1 { vec![*columns] } else { vec![*columns, *rows] };
            let (mut blocks, mut held) = (single(values), values.clone());
            let ty = if *rows == 1 { T::F32 } else { ty };
            if ty != T::F32 {
                blocks = vec![0; ty.row_bytes(values.len()).expect("whole blocks")];
                ty.encode(values, &mut blocks).expect("encodable");
                ty.decode(&blocks, &mut held).expect("whole blocks");
            }
            writers[0].tensor(name, &dims, ty, blocks);
            writers[1].tensor(name, &dims, T::F32, single(&held));
        }
        writers.map(|mut writer| {
            let bytes = writer.to_bytes().expect("a valid model");
            GGUFLoader::from_bytes(bytes.into()).expect("a valid file")
        })
    }
}

/// The processor's features with each level forced that it has.
fn levels() -> Vec<(&'static str, CpuFeatures)> {
    let detected = CpuFeatures::detect();
    let forced = [
        ("scalar", CpuFeatures { force_scalar: true, ..detected }),
        ("avx2", CpuFeatures { force_avx2: true, ..detected }),
        ("avx512", CpuFeatures { force_avx512: true, ..detected }),
        ("amx", CpuFeatures { force_amx: true, ..detected }),
    ];
    forced.into_iter().filter(|(_, features)| features.level().is_ok()).collect()
}

fn load(file: &GGUFLoader, cache: CacheType, features: CpuFeatures) -> Model {
    Model::builder("built in").cache_type(cache).cpu_features(features).threads(1).load_from(file).expect("a model")
}

fn divergence(reference: &Model, other: &Model, rows: usize) -> f64 {
    let options = CompareOptions { window: WINDOW, max_windows: Some(1), rows, ..CompareOptions::default() };
    reference.compare(other, TEXT, options).expect("compared").divergence.mean
}

/// Single precision throughout.
fn exact(file: &GGUFLoader) -> Model {
    load(file, CacheType::F32, CpuFeatures::detect())
}

#[test]
fn single_precision_is_the_reference() {
    let [file, _] = Wide::new().pair(T::F32);
    let reference = Model::builder("built in").device(Device::Reference).cache_type(CacheType::F32).load_from(&file);
    let reference = reference.expect("a model");
    for (level, features) in levels() {
        let found = divergence(&reference, &load(&file, CacheType::F32, features), WINDOW);
        // Both round to 2⁻²⁴; the square of what remains in the logits cannot be told from zero.
        assert!(found < 1e-8, "{level}: {found}");
    }
}

#[test]
fn every_type_level_and_number_of_rows_stays_within_its_bound() {
    let wide = Wide::new();
    let types = [
        T::F16,
        T::BF16,
        T::Q8_0,
        T::Q4_0,
        T::Q4_1,
        T::Q5_0,
        T::Q2_K,
        T::Q3_K,
        T::Q4_K,
        T::Q5_K,
        T::Q6_K,
        T::IQ4_NL,
        T::IQ4_XS,
        T::IQ3_S,
        T::TQ1_0,
        T::TQ2_0,
    ];
    for ty in types {
        let [file, single] = wide.pair(ty);
        let reference = exact(&single);
        let bound = if ty.block_elements() == 1 { EXACT } else { ROUNDED };
        for (level, features) in levels() {
            let model = load(&file, CacheType::F16, features);
            // Decoding, a few sequences, a prompt.
            for rows in [1, 5, WINDOW] {
                let found = divergence(&reference, &model, rows);
                assert!(found < bound, "{ty} at {level}, {rows} rows: {found}");
            }
        }
    }
}

#[test]
fn every_cache_stays_within_its_bound() {
    let [file, _] = Wide::new().pair(T::F32);
    let reference = exact(&file);
    for (cache, bound) in [(CacheType::F16, EXACT), (CacheType::Q8, ROUNDED), (CacheType::Q8Q4, FOUR_BITS)] {
        for (level, features) in levels() {
            let model = load(&file, cache, features);
            for rows in [1, 5, WINDOW] {
                let found = divergence(&reference, &model, rows);
                assert!(found < bound, "{cache} at {level}, {rows} rows: {found}");
            }
        }
    }
}
