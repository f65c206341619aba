//! The smallest mix that stays under a given divergence: a greedy search over measured sensitivity.
//!
//! 1. The weights are put into groups: of each band of layers (at most eight bands) queries and keys, values and attention
//!    output, gate and up, down; and each tensor outside the layers for itself.
//! 2. For each group and type, from the largest, the Kullback-Leibler divergence is measured with only that group
//!    quantised, until it alone exceeds what is allowed.
//! 3. Small divergences of different groups nearly add up. So beginning with the largest types, the next group to get a
//!    smaller type is always the one that saves the most bytes for the divergence it adds (steps within a group along its
//!    convex hull, where that order is always possible).
//! 4. How many of these steps the model bears is not predicted but measured: a binary search over their number.
//!
//! The result is measured as it is. It is not proved to be the smallest: groups are judged one at a time, and the mean over
//! the windows that were read has a standard error, which the result tells.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use woolly_engine::{CancelToken, Generator, Rows};
use woolly_gguf::{GGUFLoader, Replacement, TensorInfo};
use woolly_model::RunnerOptions;
use woolly_model::mix::{TensorFacts, fitting_type, is_quantisable};
use woolly_quant::TensorType;
use woolly_tensor::{BackendError, CacheType};

use super::convert::Conversion;
use super::{ImportanceMatrix, QuantizeError, QuantizeOptions};
use crate::compare::{Token, compare_rows, mean_of};
use crate::perplexity::{SCORE_ROWS, Windows};
use crate::{Error, Model};

/// Bands of layers that are judged together.
const BANDS: u64 = 8;
/// What the parts of a layer's weights that belong to one group have in their names.
const PARTS: [&[&str]; 4] = [&["attn_q", "attn_k"], &["attn_v", "attn_output"], &["ffn_gate", "ffn_up"], &["ffn_down"]];

/// What is called after each measurement.
pub type OnSearched<'a> = Box<dyn FnMut(&SearchProgress<'_>) + 'a>;

/// A measurement of a search.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SearchProgress<'a> {
    /// What was quantised, as in `blk.0-2 ffn_down`.
    pub what: &'a str,
    /// Bytes of all of the model's tensors with that.
    pub bytes: u64,
    /// The divergence with that, in nats a token.
    pub divergence: f64,
}

/// How to search.
pub struct SearchOptions<'a> {
    /// The mean Kullback-Leibler divergence from this model that is allowed, in nats a token; 0.01 is little.
    pub target: f64,
    /// The types to choose from, in any order; the default are `Q8_0`, `Q6_K`, `Q5_K`, `Q4_K`, `IQ4_XS`, `Q3_K` and `Q2_K`.
    pub types: Vec<TensorType>,
    /// Tokens of a window, at least 4. Default 512.
    pub window: usize,
    /// Most windows to read for each measurement. Default 8.
    pub max_windows: usize,
    /// How much the columns of the weights matter.
    pub importance: Option<Arc<ImportanceMatrix>>,
    /// Allows weights that are quantised already.
    pub allow_requantize: bool,
    /// Called after each measurement.
    pub on_progress: Option<OnSearched<'a>>,
    /// Stops the search from another thread.
    pub cancel: CancelToken,
}

impl SearchOptions<'_> {
    /// Searches for the smallest mix with a divergence of at most `target`.
    pub fn new(target: f64) -> Self {
        use TensorType as T;
        Self {
            target,
            types: vec![T::Q8_0, T::Q6_K, T::Q5_K, T::Q4_K, T::IQ4_XS, T::Q3_K, T::Q2_K],
            window: 512,
            max_windows: 8,
            importance: None,
            allow_requantize: false,
            on_progress: None,
            cancel: CancelToken::new(),
        }
    }
}

impl fmt::Debug for SearchOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchOptions")
            .field("target", &self.target)
            .field("types", &self.types)
            .finish_non_exhaustive()
    }
}

/// A mix that was searched for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FoundMix {
    /// The type of each weight that is quantised, for [`Target::Tensors`](super::Target::Tensors).
    pub types: Vec<(String, TensorType)>,
    /// The measured divergence, in nats a token, and its standard error.
    pub divergence: (f64, f64),
    /// Bytes of all of the model's tensors.
    pub bytes: u64,
    /// Measurements made.
    pub measured: usize,
}

impl Model {
    /// Searches the smallest mix of types with which the predictions on `text` stay within a divergence of this model's;
    /// see the module for how.
    ///
    /// The memory for the reference's predictions comes on top of the model's: windows · half a window · vocabulary
    /// floats.
    ///
    /// # Errors
    /// [`QuantizeError::NoDivergence`] when the target is not a number above 0; [`QuantizeError::Target`] when even the
    /// largest of the types exceed it; [`QuantizeError::Requantize`]; as [`Model::perplexity`].
    pub fn search_mix(&self, text: &str, mut options: SearchOptions<'_>) -> Result<FoundMix, Error> {
        let target = options.target;
        if !(target.is_finite() && target > 0.0) {
            return Err(QuantizeError::NoDivergence { target }.into());
        }
        let on_progress = options.on_progress.take();
        let mut search = Search::new(self, text, &options, on_progress)?;
        let mut groups = groups(self.file(), &options)?;
        for group in &mut groups {
            search.judge(group)?;
        }
        let steps = steps(&groups);
        let mut next = predicted(&groups, &steps, target);
        let (mut best, mut lowest, mut limit) = (None, 0, steps.len() + 1);
        while lowest < limit {
            let types = chosen(&groups, &steps[..next]);
            let divergence = search.measure("all", &types)?;
            match divergence.0 <= target {
                true => (best, lowest) = (Some((types, divergence)), next + 1),
                false if next == 0 => return Err(QuantizeError::Target { target, least: divergence.0 }.into()),
                false => limit = next,
            }
            next = lowest + (limit - lowest) / 2;
        }
        let (types, divergence) = best.unwrap_or_default();
        let tensors = self.file().tensors();
        Ok(FoundMix {
            bytes: bytes_with(tensors, &types),
            types: types.iter().map(|&(index, ty)| (tensors[index].name().to_owned(), ty)).collect(),
            divergence,
            measured: search.measured,
        })
    }
}

/// Weights that get their types together, and what was measured of them.
struct Group {
    name: String,
    /// From large to small, without what no divergence allows.
    options: Vec<Choice>,
}

/// Types for the weights of a group.
struct Choice {
    types: Types,
    bytes: u64,
    divergence: f64,
}

/// Places of tensors in the file, and their new types.
type Types = Vec<(usize, TensorType)>;

fn groups(file: &GGUFLoader, options: &SearchOptions<'_>) -> Result<Vec<Group>, Error> {
    let mut members: Vec<(String, Vec<usize>)> = Vec::new();
    let layers = woolly_model::mix::ModelFacts::read(file.metadata())?.block_count;
    for (index, tensor) in file.tensors().iter().enumerate() {
        let facts = TensorFacts::from(tensor);
        if !is_quantisable(&facts) || matches!(tensor.ty(), TensorType::I8 | TensorType::I16 | TensorType::I32) {
            continue;
        }
        if tensor.ty().block_elements() > 1 && !options.allow_requantize {
            let (tensor, from) = (tensor.name().to_owned(), tensor.ty());
            let to = options.types.first().copied().unwrap_or(TensorType::Q4_K);
            return Err(QuantizeError::Requantize { tensor, from, to }.into());
        }
        let name = group_name(tensor.name(), u64::from(layers));
        match members.iter_mut().find(|(other, _)| *other == name) {
            Some((_, members)) => members.push(index),
            None => members.push((name, vec![index])),
        }
    }
    Ok(members.into_iter().map(|(name, members)| Group::new(name, &members, file, &options.types)).collect())
}

/// `blk.0-2 attn_q attn_k` for weights of layers, the tensor's own name for others.
fn group_name(tensor: &str, layers: u64) -> String {
    let layer = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((Ok(layer), part)) = layer.map(|(layer, part)| (layer.parse::<u64>(), part)) else {
        return tensor.to_owned();
    };
    let width = layers.div_ceil(BANDS).max(1);
    let first = layer / width * width;
    let last = (first + width).min(layers.max(1)) - 1;
    let part = PARTS.iter().find(|parts| parts.iter().any(|name| part.starts_with(name)));
    let part = part.map_or_else(|| "others".to_owned(), |parts| parts.join(" "));
    format!("blk.{first}-{last} {part}")
}

impl Group {
    /// The types that rows of these lengths can have, from large to small, each once.
    fn new(name: String, members: &[usize], file: &GGUFLoader, types: &[TensorType]) -> Self {
        let tensors = file.tensors();
        let mut options: Vec<Choice> = Vec::new();
        for &ty in types {
            let fitting = |&index: &usize| (index, fitting_type(ty, tensors[index].dims()[0]));
            let types: Types = members.iter().map(fitting).collect();
            let bytes = types.iter().map(|&(index, ty)| bytes_as(&tensors[index], ty)).sum();
            if options.iter().all(|other| other.types != types) {
                options.push(Choice { types, bytes, divergence: f64::INFINITY });
            }
        }
        options.sort_by_key(|option| std::cmp::Reverse(option.bytes));
        Self { name, options }
    }
}

fn bytes_as(tensor: &TensorInfo, ty: TensorType) -> u64 {
    tensor.elements() / ty.block_elements() as u64 * ty.block_bytes() as u64
}

fn bytes_with(tensors: &[TensorInfo], types: &Types) -> u64 {
    let new = |index| types.iter().find(|(other, _)| *other == index).map(|&(_, ty)| ty);
    let bytes = |(index, tensor): (usize, &TensorInfo)| new(index).map_or(tensor.byte_len(), |ty| bytes_as(tensor, ty));
    tensors.iter().enumerate().map(bytes).sum()
}

/// A step of a group to a smaller type.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    group: usize,
    /// The option it leads to.
    option: usize,
    added: f64,
    /// Bytes saved for each nat added.
    worth: f64,
}

/// The steps of all groups, those that save the most for what they cost first. Each group's go along its convex hull, so
/// that a later one of the same group is never worth more.
fn steps(groups: &[Group]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (group, Group { options, .. }) in groups.iter().enumerate() {
        let mut at = 0;
        loop {
            let to = |(option, choice): (usize, &Choice)| {
                let added = choice.divergence - options[at].divergence;
                let saved = options[at].bytes.saturating_sub(choice.bytes) as f64;
                let worth = if added > 0.0 { saved / added } else { f64::INFINITY };
                (saved > 0.0 && choice.divergence.is_finite()).then_some(Step { group, option, added, worth })
            };
            let next = options.iter().enumerate().skip(at + 1).filter_map(to);
            // Of steps that cost nothing, the furthest.
            let Some(step) = next.max_by(|a, b| a.worth.total_cmp(&b.worth)) else { break };
            at = step.option;
            steps.push(step);
        }
    }
    steps.sort_by(|a, b| b.worth.total_cmp(&a.worth));
    steps
}

/// The number of steps that would be borne if divergences added up.
fn predicted(groups: &[Group], steps: &[Step], target: f64) -> usize {
    let begin: f64 = groups.iter().filter_map(|group| group.options.first()).map(|option| option.divergence).sum();
    let mut total = begin;
    steps
        .iter()
        .take_while(|step| {
            total += step.added;
            total <= target
        })
        .count()
}

/// The types after these steps.
fn chosen(groups: &[Group], steps: &[Step]) -> Types {
    let mut options = vec![0; groups.len()];
    steps.iter().for_each(|step| options[step.group] = step.option);
    let choices = groups.iter().zip(options).filter_map(|(group, option)| group.options.get(option));
    choices.flat_map(|choice| choice.types.iter().copied()).collect()
}

/// Measures one mix after another against the same predictions.
struct Search<'a> {
    model: &'a Model,
    options: &'a SearchOptions<'a>,
    on_progress: Option<OnSearched<'a>>,
    windows: Windows,
    /// The reference's logits of the scored rows of each window.
    reference: Vec<Vec<f32>>,
    threads: NonZeroUsize,
    measured: usize,
}

impl<'a> Search<'a> {
    fn new(
        model: &'a Model,
        text: &str,
        options: &'a SearchOptions<'a>,
        on_progress: Option<OnSearched<'a>>,
    ) -> Result<Self, Error> {
        let windows = Windows::of(model, text, options.window, Some(options.max_windows))?;
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut search = Self { model, options, on_progress, windows, reference: Vec::new(), threads, measured: 0 };
        let mut generator = model.generator(options.window, SCORE_ROWS, SCORE_ROWS.min(options.window))?;
        let mut reference = Vec::new();
        search.walk(&mut generator, |_, _, rows| {
            if rows.first == options.window / 2 {
                reference.push(Vec::new());
            }
            if let Some(window) = reference.last_mut() {
                let bytes = size_of_val(rows.logits);
                let memory = |_| BackendError::OutOfMemory { what: "the reference's predictions", bytes };
                window.try_reserve(rows.logits.len()).map_err(memory)?;
                window.extend_from_slice(rows.logits);
            }
            Ok(())
        })?;
        search.reference = reference;
        Ok(search)
    }

    /// Computes the scored rows of each window.
    fn walk(
        &self,
        generator: &mut Generator,
        mut with: impl FnMut(usize, &[u32], Rows<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (window, ids) in self.windows.iter().enumerate() {
            let mut walk = generator.walk(&ids, ids.len() / 2..ids.len() - 1)?;
            while let Some(rows) = walk.advance()? {
                if self.options.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                with(window, &ids, rows)?;
            }
        }
        Ok(())
    }

    /// Measures the types of a group, from large to small, and drops those that exceed the target alone.
    fn judge(&mut self, group: &mut Group) -> Result<(), Error> {
        for index in 0..group.options.len() {
            let what = format!("{} as {}", group.name, names(&group.options[index].types));
            let (divergence, _) = self.measure(&what, &group.options[index].types)?;
            group.options[index].divergence = divergence;
            if divergence > self.options.target && index > 0 {
                group.options.truncate(index);
                break;
            }
        }
        Ok(())
    }

    /// Measures the divergence with these types, and its standard error.
    fn measure(&mut self, what: &str, types: &Types) -> Result<(f64, f64), Error> {
        let file = self.converted(types)?;
        let loaded = self.model.load_again(&file)?;
        let window = self.options.window;
        let outputs = SCORE_ROWS.min(window);
        let sizes = RunnerOptions { context: window, max_rows: outputs, max_outputs: outputs, storage: CacheType::F16 };
        let mut generator = Generator::new(loaded.decoder(sizes)?, window);
        let mut tokens: Vec<Token> = Vec::new();
        self.walk(&mut generator, |index, ids, rows| {
            let start = (rows.first - window / 2) * rows.columns;
            let reference = self.reference.get(index).and_then(|logits| logits.get(start..start + rows.logits.len()));
            let reference = Rows { logits: reference.unwrap_or_default(), ..rows };
            tokens.extend(compare_rows(reference, rows, ids, self.threads)?);
            Ok(())
        })?;
        self.measured += 1;
        let divergence = mean_of(tokens.iter().map(|token| token.divergence));
        let bytes = bytes_with(self.model.file().tensors(), types);
        if let Some(report) = &mut self.on_progress {
            report(&SearchProgress { what, bytes, divergence: divergence.0 });
        }
        Ok(divergence)
    }

    fn converted(&self, types: &Types) -> Result<GGUFLoader, Error> {
        let (importance, cancel) = (self.options.importance.clone(), self.options.cancel.clone());
        let options = QuantizeOptions { importance, cancel, ..QuantizeOptions::new(super::QuantType::F16) };
        let input = self.model.file();
        let conversion = Conversion::new(input, options, 0)?;
        let replacements = types.iter().map(|&(index, ty)| {
            let bytes = conversion.to_bytes(&input.tensors()[index], ty)?;
            Ok(Replacement { index, ty, bytes: bytes.into() })
        });
        Ok(input.with_tensors(replacements.collect::<Result<Vec<_>, Error>>()?)?)
    }
}

/// The types of a choice, each once.
fn names(types: &Types) -> String {
    let mut names: Vec<&str> = types.iter().map(|(_, ty)| ty.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(options: &[(u64, f64)]) -> Group {
        let choice =
            |(index, &(bytes, divergence))| Choice { types: vec![(index, TensorType::F16)], bytes, divergence };
        Group { name: String::new(), options: options.iter().enumerate().map(choice).collect() }
    }

    #[test]
    fn steps_go_by_what_they_save_for_what_they_cost() {
        // The second option of the first group lies above the line from the first to the third.
        let groups = [group(&[(100, 0.0), (90, 0.5), (50, 1.0)]), group(&[(100, 0.0), (60, 0.1), (30, 10.0)])];
        let found: Vec<(usize, usize)> = steps(&groups).iter().map(|step| (step.group, step.option)).collect();
        assert_eq!(found, [(1, 1), (0, 2), (1, 2)]);
        let counts = [0.05, 0.1, 1.0, 1.1, 10.0, 11.1].map(|target| predicted(&groups, &steps(&groups), target));
        assert_eq!(counts, [0, 1, 1, 2, 2, 3]);
        assert_eq!(chosen(&groups, &steps(&groups)[..2]).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_costs_nothing_comes_first_and_what_is_too_much_never() {
        let groups = [group(&[(100, 0.2), (90, 0.1), (50, f64::INFINITY)]), group(&[(80, 0.0)])];
        let found = steps(&groups);
        assert_eq!((found.len(), found[0].option, found[0].worth), (1, 1, f64::INFINITY));
    }

    #[test]
    fn layers_are_in_bands_and_parts() {
        let cases = [
            ("blk.0.attn_q.weight", 22, "blk.0-2 attn_q attn_k"),
            ("blk.21.attn_k.weight", 22, "blk.21-21 attn_q attn_k"),
            ("blk.5.ffn_down_exps.weight", 6, "blk.5-5 ffn_down"),
            ("blk.1.ssm_out.weight", 6, "blk.1-1 others"),
            ("output.weight", 6, "output.weight"),
        ];
        for (tensor, layers, name) in cases {
            assert_eq!(group_name(tensor, layers), name);
        }
    }
}
