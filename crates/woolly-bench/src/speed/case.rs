//! What one row measures, and the grid of all rows that lists of parameters make.

use std::fmt;

use woolly_tensor::CacheType;

/// One test: so many tokens of prompt, then so many generated one by one, in a context of some depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Case {
    /// Tokens of the prompt; 0 measures generation alone.
    pub prompt: usize,
    /// Tokens generated; 0 measures the prompt alone.
    pub generate: usize,
    /// Tokens in the cache before the test.
    pub depth: usize,
    /// Sequences side by side, each with a prompt and a generation of its own.
    pub sequences: usize,
    /// Tokens of a prompt after which logits are computed once.
    pub batch: usize,
    /// Tokens computed in one step.
    pub micro_batch: usize,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Number of threads.
    pub threads: usize,
}

/// A part of a prompt that is one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// First token, counted from the start of the prompt.
    pub(crate) start: usize,
    pub(crate) rows: usize,
    /// Whether logits of its last token are computed.
    pub(crate) logits: bool,
}

impl Case {
    /// Tokens that one sequence has at the end.
    pub fn context(&self) -> usize {
        self.depth + self.prompt + self.generate
    }

    /// Tokens computed within the clock, over all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences * (self.prompt + self.generate)
    }

    /// Tokens of the largest step.
    pub fn max_rows(&self) -> usize {
        let tokens = self.depth.max(self.prompt) * self.sequences;
        self.micro_batch.min(self.batch).min(tokens).max(self.sequences).max(1)
    }

    /// Cuts a prompt of `tokens` into steps.
    pub(crate) fn chunks(&self, tokens: usize) -> impl Iterator<Item = Chunk> {
        let (batch, micro) = (self.batch.max(1), self.micro_batch.min(self.batch).max(1));
        let batches = (0..tokens).step_by(batch).map(move |start| (start, (start + batch).min(tokens)));
        batches.flat_map(move |(start, end)| {
            (start..end).step_by(micro).map(move |start| {
                let rows = micro.min(end - start);
                Chunk { start, rows, logits: start + rows == end }
            })
        })
    }
}

/// The name that llama-bench gives it, `pp512`, `tg128`, `pp512+tg128`, with ` @ d2048` for a depth; several sequences
/// add ` x4`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prompt, self.generate) {
            (prompt, 0) => write!(f, "pp{prompt}")?,
            (0, generate) => write!(f, "tg{generate}")?,
            (prompt, generate) => write!(f, "pp{prompt}+tg{generate}")?,
        }
        if self.sequences > 1 {
            write!(f, " x{}", self.sequences)?;
        }
        if self.depth > 0 { write!(f, " @ d{}", self.depth) } else { Ok(()) }
    }
}

/// Lists of parameters, every combination of which is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Lengths of prompts that are measured alone; 0 is left out.
    pub prompts: Vec<usize>,
    /// Lengths of generations that are measured alone; 0 is left out.
    pub generations: Vec<usize>,
    /// Prompts followed by generations, measured together.
    pub pairs: Vec<(usize, usize)>,
    /// As [`Case::depth`].
    pub depths: Vec<usize>,
    /// As [`Case::sequences`].
    pub sequences: Vec<usize>,
    /// As [`Case::batch`].
    pub batches: Vec<usize>,
    /// As [`Case::micro_batch`].
    pub micro_batches: Vec<usize>,
    /// As [`Case::cache`].
    pub caches: Vec<CacheType>,
    /// As [`Case::threads`].
    pub threads: Vec<usize>,
}

/// llama-bench's defaults: `pp512` and `tg128` on the default number of threads.
impl Default for Grid {
    fn default() -> Self {
        Self {
            prompts: vec![512],
            generations: vec![128],
            pairs: Vec::new(),
            depths: vec![0],
            sequences: vec![1],
            batches: vec![2048],
            micro_batches: vec![512],
            caches: vec![CacheType::F16],
            threads: vec![woolly_cpu::default_threads()],
        }
    }
}

impl Grid {
    /// Returns all cases in llama-bench's order: of each setting first the prompts, then the generations, then the pairs.
    pub fn cases(&self) -> Vec<Case> {
        let prompts = self.prompts.iter().map(|&prompt| (prompt, 0));
        let generations = self.generations.iter().map(|&generate| (0, generate));
        let lengths = prompts.chain(generations).chain(self.pairs.iter().copied());
        let lengths: Vec<_> = lengths.filter(|&(prompt, generate)| prompt + generate > 0).collect();
        let mut cases = Vec::new();
        for setting in self.settings() {
            let case = |&(prompt, generate)| Case { prompt, generate, ..setting };
            cases.extend(lengths.iter().map(case));
        }
        cases
    }

    fn settings(&self) -> Vec<Case> {
        let mut all = vec![Case {
            prompt: 0,
            generate: 0,
            depth: 0,
            sequences: 1,
            batch: 0,
            micro_batch: 0,
            cache: CacheType::F16,
            threads: 1,
        }];
        vary(&mut all, &self.batches, |case, &batch| case.batch = batch);
        vary(&mut all, &self.micro_batches, |case, &micro_batch| case.micro_batch = micro_batch);
        vary(&mut all, &self.caches, |case, &cache| case.cache = cache);
        vary(&mut all, &self.threads, |case, &threads| case.threads = threads);
        vary(&mut all, &self.depths, |case, &depth| case.depth = depth);
        vary(&mut all, &self.sequences, |case, &sequences| case.sequences = sequences);
        all
    }
}

/// Replaces every case by as many as there are values, the last list varying fastest.
fn vary<T>(cases: &mut Vec<Case>, values: &[T], set: impl Fn(&mut Case, &T)) {
    let with = |mut case: Case, value: &T| {
        set(&mut case, value);
        case
    };
    let combined = cases.iter().flat_map(|&case| values.iter().map(move |value| (case, value)));
    *cases = combined.map(|(case, value)| with(case, value)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(grid: &Grid) -> Vec<String> {
        grid.cases().iter().map(|case| format!("{case} t{}", case.threads)).collect()
    }

    #[test]
    fn names_and_order_are_those_of_llama_bench() {
        let base = Grid { threads: vec![2], ..Grid::default() };
        assert_eq!(names(&base), ["pp512 t2", "tg128 t2"]);
        let grid = Grid {
            prompts: vec![0, 16, 32],
            generations: vec![8, 0],
            pairs: vec![(16, 8), (0, 0), (0, 4)],
            depths: vec![0, 64],
            threads: vec![1, 2],
            ..Grid::default()
        };
        // From `llama-bench -p 0,16,32 -n 8,0 -pg 16,8 -pg 0,0 -pg 0,4 -d 0,64 -t 1,2` of llama.cpp 0.5.0-dev.
        let expected = [
            "pp16 t1",
            "pp32 t1",
            "tg8 t1",
            "pp16+tg8 t1",
            "tg4 t1",
            "pp16 @ d64 t1",
            "pp32 @ d64 t1",
            "tg8 @ d64 t1",
            "pp16+tg8 @ d64 t1",
            "tg4 @ d64 t1",
            "pp16 t2",
            "pp32 t2",
            "tg8 t2",
            "pp16+tg8 t2",
            "tg4 t2",
            "pp16 @ d64 t2",
            "pp32 @ d64 t2",
            "tg8 @ d64 t2",
            "pp16+tg8 @ d64 t2",
            "tg4 @ d64 t2",
        ];
        assert_eq!(names(&grid), expected);
        let many = Grid { prompts: vec![], sequences: vec![1, 4], threads: vec![1], ..Grid::default() };
        assert_eq!(names(&many), ["tg128 t1", "tg128 x4 t1"]);
    }

    #[test]
    fn prompts_are_cut_into_batches_and_these_into_steps() {
        let case = |batch, micro_batch| {
            let grid = Grid { batches: vec![batch], micro_batches: vec![micro_batch], ..Grid::default() };
            grid.cases().swap_remove(0)
        };
        let cut =
            |case: &Case, tokens| -> Vec<_> { case.chunks(tokens).map(|c| (c.start, c.rows, c.logits)).collect() };
        assert_eq!(cut(&case(2048, 512), 600), [(0, 512, false), (512, 88, true)]);
        assert_eq!(cut(&case(100, 64), 150), [(0, 64, false), (64, 36, true), (100, 50, true)]);
        assert_eq!(cut(&case(32, 64), 40), [(0, 32, true), (32, 8, true)], "a step is no larger than a batch");
        assert_eq!(cut(&case(2048, 512), 0), []);
    }
}
