//! The suite every backend passes: each operation against [`crate::Reference`] over types, shapes and cache layouts.
//!
//! A backend instantiates it in one line of its tests with [`crate::conformance!`]. The checks panic with the case that
//! failed. Bounds are derived, not tuned: a backend that rounds activations to eight bits in blocks of at most 256 may
//! be off by half a step a weight, and everything else by a few units in the last place of the summed magnitudes.

mod attention;
mod dense;
mod experts;
mod random;

pub use attention::{attention, cache_blocks};
pub use dense::{embed, gated, norms, projections, refusals, storage};
pub use experts::experts;

/// How far a backend may be from exact arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Bound on the error of an inner product, as a share of the sum of the magnitudes of its terms.
    pub relative: f64,
    /// Whether products with block-quantised weights round the activations to eight bits in blocks of at most 256.
    pub integer_activations: bool,
    /// Whether products of many rows with large matrices of BF16 weights round the activations to bfloat16: each by up to 2⁻⁹ of itself.
    pub bf16_activations: bool,
    /// Whether attention of many rows rounds softmax weights and values to bfloat16: each by up to 2⁻⁹ of itself.
    pub bf16_attention: bool,
}

impl Tolerance {
    /// For backends that compute in `f32` throughout.
    pub const F32: Self =
        Self { relative: 2e-6, integer_activations: false, bf16_activations: false, bf16_attention: false };
    /// For backends that multiply quantised weights with eight-bit activations and everything else in `f32`.
    pub const INT8: Self = Self { integer_activations: true, ..Self::F32 };
}

/// Instantiates the whole suite as tests in a module: `conformance!(scalar, Cpu::new(..), Tolerance::INT8)`.
///
/// The second argument is an expression that makes the backend; it is evaluated once a test.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $backend:expr, $tolerance:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn storage() {
                $crate::conformance::storage(&$backend);
            }

            #[test]
            fn embed() {
                $crate::conformance::embed(&$backend);
            }

            #[test]
            fn norms() {
                $crate::conformance::norms(&$backend, $tolerance);
            }

            #[test]
            fn projections() {
                $crate::conformance::projections(&$backend, $tolerance);
            }

            #[test]
            fn gated() {
                $crate::conformance::gated(&$backend, $tolerance);
            }

            #[test]
            fn attention() {
                $crate::conformance::attention(&$backend, $tolerance);
            }

            #[test]
            fn cache_blocks() {
                $crate::conformance::cache_blocks(&$backend);
            }

            #[test]
            fn experts() {
                $crate::conformance::experts(&$backend, $tolerance);
            }

            #[test]
            fn refusals() {
                $crate::conformance::refusals(&$backend);
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::Reference;
    use crate::conformance::Tolerance;

    crate::conformance!(reference, Reference::new(), Tolerance::F32);
}
