//! The fixed set of measurements by which this engine is compared with llama.cpp: what the README's table shows.

use woolly_model::mix::Mix;

use crate::speed::{Case, Grid};
use crate::{Error, Shape, Synthetic};

/// Measurements on one model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The model.
    pub model: Synthetic,
    /// What is measured of it.
    pub cases: Vec<Case>,
    /// Whether time to the first token and memory are measured, too.
    pub startup: bool,
}

/// Returns all measurements for a machine with `threads` processors.
///
/// # Errors
/// None; the shapes are known ones.
pub fn targets(threads: usize) -> Result<Vec<Target>, Error> {
    let all = if threads > 1 { vec![1, threads] } else { vec![1] };
    let base = Grid { prompts: vec![], generations: vec![], threads: vec![threads], ..Grid::default() };
    let decode = Grid { generations: vec![64], threads: all, ..base.clone() };
    let decode_on_all = Grid { generations: vec![64], ..base.clone() };
    let prefill = Grid { prompts: vec![512], ..base.clone() };
    let deep = Grid { generations: vec![32], depths: vec![2048, 8192], ..base.clone() };
    let batches = Grid { generations: vec![32], sequences: vec![1, 4, 8, 16, 32], ..base };
    let table: [(&str, Mix, &[&Grid], bool); 8] = [
        ("TinyLlama-1.1B", Mix::Q4_K_M, &[&decode, &prefill, &deep, &batches], true),
        ("TinyLlama-1.1B", Mix::Q4_0, &[&decode, &prefill], false),
        ("TinyLlama-1.1B", Mix::Q8_0, &[&decode, &prefill], false),
        ("TinyLlama-1.1B", Mix::Q5_K_M, &[&decode], false),
        ("TinyLlama-1.1B", Mix::F16, &[&decode_on_all], false),
        ("Llama-3.2-1B", Mix::Q4_K_M, &[&decode_on_all], false),
        ("Qwen2.5-0.5B", Mix::Q8_0, &[&decode_on_all, &prefill], false),
        ("Llama-2-7B", Mix::Q4_K_M, &[], true),
    ];
    let target = |(shape, mix, grids, startup): (&str, Mix, &[&Grid], bool)| {
        let model = Synthetic { shape: Shape::named(shape)?, mix };
        Ok(Target { model, cases: grids.iter().flat_map(|grid| grid.cases()).collect(), startup })
    };
    table.into_iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_there() {
        let targets = targets(2).expect("known shapes");
        let rows: Vec<String> = targets
            .iter()
            .flat_map(|target| {
                target.cases.iter().map(move |case| format!("{} {case} t{}", target.model, case.threads))
            })
            .collect();
        assert_eq!(rows.len(), 22, "{rows:#?}");
        for row in [
            "TinyLlama-1.1B:Q4_K_M tg64 t1",
            "TinyLlama-1.1B:Q4_K_M tg32 @ d8192 t2",
            "TinyLlama-1.1B:Q4_K_M tg32 x32 t2",
            "TinyLlama-1.1B:F16 tg64 t2",
            "Qwen2.5-0.5B:Q8_0 pp512 t2",
        ] {
            assert!(rows.iter().any(|known| known == row), "{row}: {rows:#?}");
        }
        assert_eq!(targets.iter().filter(|target| target.startup).count(), 2);
        assert!(
            super::targets(1).expect("known").iter().flat_map(|target| &target.cases).all(|case| case.threads == 1)
        );
    }
}
