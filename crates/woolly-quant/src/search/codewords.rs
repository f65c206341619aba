//! x ≈ scale · codeword, with codewords from a grid of vectors: the IQ1, IQ2 and IQ3 formats.
//!
//! With a = Σ w·x·v and b = Σ w·v² over the elements v of a codeword, scale s brings the error of a group below that of
//! zeros by s·(2a − s·b). Divided by s that is a line in s for each codeword, and the best codeword at s is the highest
//! line. Only few lines are highest anywhere in the range of scales worth trying, so a group keeps those, and every
//! scale is then tried with the truly nearest codewords at the cost of a few lines. (The reference rounds to the grid
//! and looks at neighbours of the rounded point.)

use super::as_f16;

/// A grid by columns, so that all codewords are scanned as vectors: `columns[i][k]` is element i of codeword k.
pub(crate) type Columns<const WIDTH: usize, const WORDS: usize> = [[f32; WORDS]; WIDTH];

/// Transposes a grid.
pub(crate) const fn columns<const WIDTH: usize, const WORDS: usize>(
    grid: &[[i8; WIDTH]; WORDS],
) -> Columns<WIDTH, WORDS> {
    let mut columns = [[0.0; WORDS]; WIDTH];
    let mut word = 0;
    while word < WORDS {
        let mut i = 0;
        while i < WIDTH {
            columns[i][word] = grid[word][i] as f32;
            i += 1;
        }
        word += 1;
    }
    columns
}

/// How a format uses its grid.
pub(crate) struct Format<'a, const WIDTH: usize, const WORDS: usize> {
    pub(crate) grid: &'a Columns<WIDTH, WORDS>,
    /// What may be added to the elements of the grid: each run chooses a list, each of its groups a shift from it.
    pub(crate) shifts: &'a [&'a [f32]],
    /// Code c of the scale of a run stands for the block scale times `first` + c · `step`, up to c = `highest`.
    pub(crate) first: f32,
    pub(crate) step: f32,
    pub(crate) highest: u8,
    /// The largest magnitude in the grid.
    pub(crate) largest: f32,
    /// The magnitude of the codeword of equal elements that needs the largest scale.
    pub(crate) flattest: f32,
}

/// An encoded block of `RUNS` runs and `GROUPS` groups.
pub(crate) struct Found<const RUNS: usize, const GROUPS: usize> {
    /// The block scale, as binary16 holds it.
    pub(crate) d: f32,
    /// The codes of the scales of the runs.
    pub(crate) scales: [u8; RUNS],
    /// The lists of shifts that the runs chose.
    pub(crate) choices: [u8; RUNS],
    /// The indices of the groups in the grid, plus the number of words times the index of the shift.
    pub(crate) words: [u16; GROUPS],
}

impl<const WIDTH: usize, const WORDS: usize> Format<'_, WIDTH, WORDS> {
    /// Searches the scales and codewords of least weighted error for a block.
    #[inline(always)]
    pub(crate) fn search<const RUNS: usize, const GROUPS: usize>(
        &self,
        x: &[f32; 256],
        w: &[f32; 256],
    ) -> Found<RUNS, GROUPS> {
        let mut runs = Vec::with_capacity(RUNS);
        let mut tables = Tables::default();
        for (x, w) in x.chunks(256 / RUNS).zip(w.chunks(256 / RUNS)) {
            runs.push(self.run(x, w, &mut tables));
        }
        let Scales { d, codes } = self.two_level::<RUNS>(&runs);
        let mut found = Found { d, scales: codes, choices: [0; RUNS], words: [0; GROUPS] };
        for (j, words) in found.words.chunks_exact_mut(GROUPS / RUNS).enumerate() {
            let scale = d * self.factor(codes[j]);
            let (choice, _) = runs[j].best(scale);
            found.choices[j] = choice as u8;
            for (word, group) in words.iter_mut().zip(&runs[j].choices[choice]) {
                *word = group.best(scale).word;
            }
        }
        found
    }

    #[inline(always)]
    fn run(&self, x: &[f32], w: &[f32], tables: &mut Tables<WORDS>) -> Run {
        let peak = x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        // Magnitudes begin well above zero, so outliers are rather clipped than many small elements blown up.
        let scales = [0.2 * peak / self.largest, 1.3 * peak / self.largest, peak / self.flattest];
        let mut choices = Vec::with_capacity(self.shifts.len());
        for shifts in self.shifts {
            let mut groups = Vec::with_capacity(x.len() / WIDTH);
            for (x, w) in x.as_chunks().0.iter().zip(w.as_chunks().0) {
                tables.fill(self.grid, shifts, x, w);
                groups.push(Group::new(tables, scales));
            }
            choices.push(groups);
        }
        Run { choices, scales }
    }

    #[inline(always)]
    fn factor(&self, code: u8) -> f32 {
        self.first + f32::from(code) * self.step
    }

    /// The scales of least error for a block.
    #[inline(always)]
    fn two_level<const RUNS: usize>(&self, runs: &[Run]) -> Scales<RUNS> {
        let wanted: [f32; RUNS] = std::array::from_fn(|j| runs[j].best_scale());
        let largest = wanted.iter().fold(0.0_f32, |a, &b| a.max(b));
        let mut best = Scales { d: 0.0, codes: [0; RUNS] };
        let mut most = 0.0;
        for stretch in [1.0, 0.9, 1.1] {
            let mut d = stretch * largest / self.factor(self.highest);
            for _ in 0..3 {
                d = as_f16(d);
                let (codes, sum) = self.assign(runs, &wanted, d);
                let gain = d * sum.height(d);
                if gain > most {
                    (most, best) = (gain, Scales { d, codes });
                }
                d = if sum.b > 0.0 { sum.a / sum.b } else { 0.0 };
            }
        }
        best
    }

    /// The best codes for block scale `d` among the three nearest to the wanted scales, and a and b of the block.
    #[inline(always)]
    fn assign<const RUNS: usize>(&self, runs: &[Run], wanted: &[f32; RUNS], d: f32) -> ([u8; RUNS], Line) {
        let mut total = Line::default();
        let mut codes = [0; RUNS];
        for (j, run) in runs.iter().enumerate() {
            let centre = ((wanted[j] / d - self.first) / self.step + 0.5) as u8;
            let centre = centre.min(self.highest);
            let (mut most, mut best) = (f32::NEG_INFINITY, Line::default());
            for code in centre.saturating_sub(1)..=(centre + 1).min(self.highest) {
                let scale = d * self.factor(code);
                let (_, sum) = run.best(scale);
                let gain = scale * sum.height(scale);
                if gain > most {
                    (most, best, codes[j]) = (gain, sum, code);
                }
            }
            let factor = self.factor(codes[j]);
            total.a += factor * best.a;
            total.b += factor * factor * best.b;
        }
        (codes, total)
    }
}

/// The block scale, as binary16 holds it, and the codes of the scales of the runs.
struct Scales<const RUNS: usize> {
    d: f32,
    codes: [u8; RUNS],
}

/// The signs of a block, bit i of byte k set where element 8k + i is negative, and the magnitudes.
#[inline(always)]
pub(crate) fn split_signs(x: &[f32; 256]) -> ([u8; 32], [f32; 256]) {
    let (groups, _) = x.as_chunks::<8>();
    let signs = std::array::from_fn(|k| groups[k].iter().rev().fold(0, |bits, &x| bits << 1 | u8::from(x < 0.0)));
    (signs, x.map(f32::abs))
}

/// As [`split_signs`], for formats that store an even number of negative signs for 8 elements. When it is odd, the
/// element whose wrong sign costs least gets one: its magnitude is negative then.
#[inline(always)]
pub(crate) fn split_even_signs(x: &[f32; 256], w: &[f32; 256]) -> ([u8; 32], [f32; 256]) {
    let (mut signs, mut magnitudes) = split_signs(x);
    let groups = magnitudes.as_chunks_mut::<8>().0.iter_mut().zip(w.as_chunks::<8>().0);
    for (signs, (magnitudes, w)) in signs.iter_mut().zip(groups) {
        if signs.count_ones() % 2 == 1 {
            let cost = |i: usize| w[i] * magnitudes[i];
            let cheapest = (1..8).fold(0, |best, i| if cost(i) < cost(best) { i } else { best });
            magnitudes[cheapest] = -magnitudes[cheapest];
            *signs ^= 1 << cheapest;
        }
    }
    (signs, magnitudes)
}

/// A codeword as a group sees it.
#[derive(Clone, Copy, Default)]
struct Line {
    /// Σ w·x·v.
    a: f32,
    /// Σ w·v².
    b: f32,
    word: u16,
}

impl Line {
    /// The height of the line at scale `s`: the gain divided by `s`.
    #[inline(always)]
    fn height(self, s: f32) -> f32 {
        2.0 * self.a - s * self.b
    }

    /// The scale above which `lower` is higher than `self`, if its slope is.
    #[inline(always)]
    fn crossing(self, lower: Self) -> Option<f32> {
        let step = self.b - lower.b;
        (step > 0.0).then(|| 2.0 * (self.a - lower.a) / step)
    }
}

/// A group of elements that one codeword stands for, with the codewords that are best at some scale: the upper envelope
/// of their lines.
struct Group {
    /// In the order of the scales where they are highest, which is the descending order of b.
    lines: Vec<Line>,
    /// Above scale `ends[i]`, line i + 1 is higher than line i.
    ends: Vec<f32>,
}

impl Group {
    /// Chooses the codewords for the scales from `low` to `high`, and for the scale `flat` beyond.
    #[inline(always)]
    fn new<const WORDS: usize>(tables: &mut Tables<WORDS>, [low, high, flat]: [f32; 3]) -> Self {
        /// Most groups keep fewer codewords.
        const USUAL: usize = 16;
        let (first, last) = (tables.highest(low), tables.highest(high));
        let mut group = Self { lines: Vec::with_capacity(USUAL), ends: Vec::with_capacity(USUAL) };
        group.lines.push(first);
        group.append_between(tables, first, last);
        let flattest = tables.highest(flat);
        if let Some(scale) = last.crossing(flattest) {
            group.lines.push(flattest);
            group.ends.push(scale);
        }
        group
    }

    /// Appends the lines that follow `left`, up to and with `right`. Where two lines cross, either no line is higher, or
    /// the highest one belongs between them.
    #[inline(always)]
    fn append_between<const WORDS: usize>(&mut self, tables: &mut Tables<WORDS>, left: Line, right: Line) {
        /// What a codeword must add to the gain to be kept, as a share of it.
        const WORTHWHILE: f32 = 1e-5;
        let mut left = left;
        tables.waiting.push(right);
        while let Some(&right) = tables.waiting.last() {
            if let Some(scale) = left.crossing(right) {
                let between = tables.highest(scale);
                // True but for rounding, and what makes the search end.
                let is_between = right.b < between.b && between.b < left.b;
                if is_between && between.height(scale) > left.height(scale) + WORTHWHILE * left.a.abs() {
                    tables.waiting.push(between);
                    continue;
                }
                self.lines.push(right);
                self.ends.push(scale);
            }
            left = right;
            tables.waiting.pop();
        }
    }

    #[inline(always)]
    fn best(&self, scale: f32) -> Line {
        self.lines[self.ends.iter().filter(|&&end| end < scale).count()]
    }
}

/// All lines of a group, in memory that the groups of a block have in turn.
#[derive(Default)]
struct Tables<const WORDS: usize> {
    /// One for each shift.
    tables: Vec<Table<WORDS>>,
    /// For [`Group::append_between`]; empty before and after.
    waiting: Vec<Line>,
}

impl<const WORDS: usize> Tables<WORDS> {
    /// Computes the lines of a group. The elements of the codewords are moved by each of `shifts`; word k with shift n
    /// has the number k + n·WORDS.
    #[inline(always)]
    fn fill<const WIDTH: usize>(
        &mut self,
        grid: &Columns<WIDTH, WORDS>,
        shifts: &[f32],
        x: &[f32; WIDTH],
        w: &[f32; WIDTH],
    ) {
        self.tables.resize(shifts.len(), Table { a: [0.0; WORDS], b: [0.0; WORDS] });
        for (table, &shift) in self.tables.iter_mut().zip(shifts) {
            table.fill(grid, shift, x, w);
        }
    }

    /// The highest line at `scale`.
    #[inline(always)]
    fn highest(&self, scale: f32) -> Line {
        let mut best = self.tables[0].highest(scale);
        for (n, table) in (1..).zip(&self.tables[1..]) {
            let line = table.highest(scale);
            if line.height(scale) > best.height(scale) {
                best = Line { word: line.word + n * WORDS as u16, ..line };
            }
        }
        best
    }
}

/// a and b of every codeword of a grid.
#[derive(Clone)]
struct Table<const WORDS: usize> {
    a: [f32; WORDS],
    b: [f32; WORDS],
}

impl<const WORDS: usize> Table<WORDS> {
    #[inline(always)]
    fn fill<const WIDTH: usize>(
        &mut self,
        grid: &Columns<WIDTH, WORDS>,
        shift: f32,
        x: &[f32; WIDTH],
        w: &[f32; WIDTH],
    ) {
        let mut wx = [0.0; WIDTH];
        for i in 0..WIDTH {
            wx[i] = w[i] * x[i];
        }
        for k in 0..WORDS {
            let (mut a, mut b) = (0.0, 0.0);
            for i in 0..WIDTH {
                let value = grid[i][k] + shift;
                a += wx[i] * value;
                b += w[i] * value * value;
            }
            (self.a[k], self.b[k]) = (a, b);
        }
    }

    /// The highest line at `scale`.
    #[inline(always)]
    fn highest(&self, scale: f32) -> Line {
        // Rows as long as this make the inner loops vectorise.
        const ROW: usize = 16;
        // So many rows side by side that no maximum waits for the one before.
        const WIDE: usize = 4 * ROW;
        let mut heights = [0.0; WORDS];
        for k in 0..WORDS {
            heights[k] = 2.0 * self.a[k] - scale * self.b[k];
        }
        let mut wide = [f32::NEG_INFINITY; WIDE];
        for row in heights.as_chunks::<WIDE>().0 {
            for i in 0..WIDE {
                wide[i] = if row[i] > wide[i] { row[i] } else { wide[i] };
            }
        }
        let mut tops = [f32::NEG_INFINITY; ROW];
        for row in wide.as_chunks::<ROW>().0 {
            for i in 0..ROW {
                tops[i] = if row[i] > tops[i] { row[i] } else { tops[i] };
            }
        }
        let top = largest(tops);
        // Without a branch: where it is cannot be predicted.
        let column = (0..ROW).rev().fold(0, |column, i| if tops[i] == top { i } else { column });
        let row = heights.as_chunks::<ROW>().0.iter().position(|row| row[column] == top).unwrap_or(0);
        let word = row * ROW + column;
        Line { a: self.a[word], b: self.b[word], word: word as u16 }
    }
}

/// The largest element, by halves.
#[inline(always)]
fn largest<const N: usize>(mut terms: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            terms[i] = if terms[i + half] > terms[i] { terms[i + half] } else { terms[i] };
        }
        half /= 2;
    }
    terms[0]
}

/// Groups that share a scale. Where they also share a choice, such as the sign of a shift, there is a list of groups
/// for each.
struct Run {
    choices: Vec<Vec<Group>>,
    /// The ends of the range of scales that the groups kept codewords for, and the scale beyond.
    scales: [f32; 3],
}

impl Run {
    /// The best choice at `scale`, with its a and b.
    #[inline(always)]
    fn best(&self, scale: f32) -> (usize, Line) {
        let sums = self.choices.iter().map(|groups| {
            groups.iter().map(|group| group.best(scale)).fold(Line::default(), |sum, line| Line {
                a: sum.a + line.a,
                b: sum.b + line.b,
                word: 0,
            })
        });
        let mut best = (0, Line::default());
        for (i, sum) in sums.enumerate() {
            if i == 0 || sum.height(scale) > best.1.height(scale) {
                best = (i, sum);
            }
        }
        best
    }

    /// The scale of least error for a run with a scale of its own, within its range or thereabouts.
    #[inline(always)]
    fn best_scale(&self) -> f32 {
        const STEPS: i32 = 12;
        let [low, high, flat] = self.scales;
        let ratio = (high / low).powf(1.0 / STEPS as f32);
        let (mut most, mut best) = (0.0, 0.0);
        for scale in (0..=STEPS).map(|i| low * ratio.powi(i)).chain([flat]) {
            let (_, sum) = self.best(scale);
            let gain = if sum.b > 0.0 { sum.a * sum.a / sum.b } else { 0.0 };
            if gain > most && sum.a > 0.0 {
                (most, best) = (gain, sum.a / sum.b);
            }
        }
        best
    }
}
