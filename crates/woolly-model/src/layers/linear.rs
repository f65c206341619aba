//! Linear maps with their biases, and root-mean-square normalisation.

use woolly_tensor::{Backend, Norm, Projection};

use crate::Error;
use crate::weights::Block;

/// Whether a linear map has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    /// The architecture defines one; a file without it is incomplete.
    Required,
    /// Used where the file has one.
    Optional,
}

/// `W · x + b`.
pub(crate) struct Linear<B: Backend> {
    /// `[inputs, outputs]`.
    weight: B::Weight,
    /// `[outputs]`.
    bias: Option<B::Weight>,
}

impl<B: Backend> Linear<B> {
    /// Loads `<name>.weight` and `<name>.bias`; `dims` are inputs and outputs.
    pub(crate) fn load(block: &mut Block<'_, '_, B>, name: &str, dims: [usize; 2], bias: Bias) -> Result<Self, Error> {
        let weight = block.required(&format!("{name}.weight"), &dims)?;
        let name = format!("{name}.bias");
        let bias = match bias {
            Bias::Required => Some(block.required(&name, &dims[1..])?),
            Bias::Optional => block.optional(&name, &dims[1..])?,
        };
        Ok(Self { weight, bias })
    }

    /// The projection that replaces what `out` holds.
    pub(crate) fn replace<'a>(&'a self, out: &'a mut B::Tensor) -> Projection<'a, B> {
        Projection { weight: &self.weight, bias: self.bias.as_ref(), out, accumulate: false }
    }

    /// The projection that adds to what `out` holds: a residual connection.
    pub(crate) fn add_to<'a>(&'a self, out: &'a mut B::Tensor) -> Projection<'a, B> {
        Projection { accumulate: true, ..self.replace(out) }
    }
}

/// Root-mean-square normalisation with its weight and ε.
pub(crate) struct RmsNorm<B: Backend> {
    /// `[columns]`.
    pub(crate) weight: B::Weight,
    pub(crate) epsilon: f32,
}

impl<B: Backend> RmsNorm<B> {
    /// Loads `<name>.weight` of length `len`.
    pub(crate) fn load(block: &mut Block<'_, '_, B>, name: &str, len: usize, epsilon: f32) -> Result<Self, Error> {
        Ok(Self { weight: block.required(&format!("{name}.weight"), &[len])?, epsilon })
    }

    pub(crate) fn op(&self) -> Norm<'_, B> {
        Norm { weight: &self.weight, epsilon: self.epsilon }
    }
}
