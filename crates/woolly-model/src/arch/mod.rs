//! The architectures: one file each, named as `general.architecture` names it.
//!
//! A file has the same three parts in the same order: `keys` reads the hyper-parameters, `load` the tensors, `forward`
//! computes. To add one, write the file and add its name to `archs!`.

use woolly_gguf::GGUFLoader;
use woolly_tensor::Backend;

use crate::keys::Keys;
use crate::pass::Pass;
use crate::weights::Tensors;
use crate::{Config, Error};

/// The computation of a loaded model.
pub(crate) trait Network<B: Backend>: Send + Sync {
    /// Runs a checked step through all layers.
    fn forward(&self, pass: &mut Pass<'_, B>) -> Result<(), Error>;
}

macro_rules! archs {
    ($($name:ident)*) => {
        $(mod $name;)*

        /// Returns the values of `general.architecture` that can be loaded.
        pub fn architectures() -> &'static [&'static str] {
            &[$(stringify!($name)),*]
        }

        /// Loads the model whose architecture is `name`.
        pub(crate) fn load<B: Backend>(
            name: &str,
            loader: &GGUFLoader,
            tensors: &mut Tensors<'_, B>,
        ) -> Result<(Config, Box<dyn Network<B>>), Error> {
            let keys = &Keys::new(loader, name);
            match name {
                $(stringify!($name) => {
                    let config = $name::keys(keys)?;
                    let network = $name::load(tensors, &config)?;
                    Ok((config, Box::new(network)))
                })*
                _ => Err(unknown(name)),
            }
        }
    };
}

archs! { llama qwen2 qwen2moe qwen3 qwen3moe }

fn unknown(name: &str) -> Error {
    // A name from a hostile file can be of any length; the distance is computed on its beginning.
    let short: String = name.chars().take(64).collect();
    let nearest = architectures().iter().map(|known| (distance(&short, known), *known)).min();
    let nearest = nearest.filter(|&(distance, known)| distance <= known.len() / 2).map(|(_, known)| known);
    Error::UnknownArchitecture { name: short, known: architectures(), nearest }
}

/// Number of single-letter insertions, deletions and replacements between two names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_known_from_textbooks() {
        let cases = [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("qwen3", "qwen3", 0), ("ab", "ba", 2)];
        for (a, b, expected) in cases {
            assert_eq!(distance(a, b), expected, "{a:?} to {b:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_reported_with_its_neighbour() {
        let cases = [("lama", Some("llama")), ("qwen3-moe", Some("qwen3moe")), ("mamba", None), ("", None)];
        for (name, expected) in cases {
            let Error::UnknownArchitecture { nearest, known, .. } = unknown(name) else { panic!("another error") };
            assert_eq!(nearest, expected, "{name:?}");
            assert_eq!(known, architectures());
        }
    }
}
