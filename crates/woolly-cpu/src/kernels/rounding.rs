//! How activations are rounded to eight bits, which every kernel has to do alike: a sequence must not change with its company.
//!
//! Each 32 of them share a scale, a 127th of the largest. For weights in blocks of 256, and for those that are unpacked to
//! memory first, that scale is rounded up to a whole multiple, at most 127, of a unit that 256 share, so that kernels can scale
//! sums as integers. Ternary weights have one scale for a block of 256, and so have activations beside them: models with such
//! weights are trained with one scale for all activations of a token (BitNet b1.58, arXiv:2402.17764, section 2).
//!
//! Two exceptions: weights that are rescaled for many rows share scales over 128 columns. And where one input is multiplied with
//! weights of several of these kinds, panels of several rows have multiples for all of them, while one row has its own scales for
//! each.
//!
//! Beside float weights activations are not rounded, except to bfloat16 for several rows: on AMX tiles beside all types but F32, and
//! beside BF16 on AVX-512 of processors that are fast at it. Few rows and small matrices ([`super::gemv`]) are exact there, too.

use woolly_quant::TensorType;

use super::unpacked::layout;

/// Columns over which multiples share a unit.
pub(crate) const BLOCK: usize = 256;

/// The largest multiple.
const LARGEST: f32 = 127.0;

/// Below this an inverse would overflow; such blocks add nothing that a float sum could hold.
const SMALLEST: f32 = 1e-33;

/// Which activations share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scales {
    /// Each 32 have their own.
    #[default]
    Own,
    /// Each 32 have a multiple of the unit of [`BLOCK`].
    Multiples,
    /// Each [`BLOCK`] have one, the largest multiple of their unit.
    Block,
}

impl Scales {
    /// Those of activations for weights of this type.
    pub(crate) const fn of(ty: TensorType) -> Self {
        match ty {
            TensorType::TQ1_0 | TensorType::TQ2_0 => Self::Block,
            _ if ty.block_elements() == BLOCK || layout(ty).is_some() => Self::Multiples,
            _ => Self::Own,
        }
    }

    /// Those of activations that are multiplied with weights of both kinds.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Multiples }
    }

    /// Returns the unit of a block of which these are the bits of the largest magnitude, if there is one.
    #[inline(always)]
    pub(crate) fn unit(self, most: u32) -> Option<Unit> {
        match self {
            Self::Own => None,
            Self::Multiples => Some(Unit::new(most, 1.0)),
            Self::Block => Some(Unit::new(most, LARGEST)),
        }
    }
}

/// Returns the bits of the largest magnitude: as integers, magnitudes order like the floats, and infinities and NaN stay
/// visible above all of them.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> u32 {
    x.iter().fold(0, |m, x| (x.to_bits() & 0x7fff_ffff).max(m))
}

/// The unit of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    /// NaN where a number of the block is none.
    pub(crate) size: f32,
    /// How many units make the scale of a group whose largest magnitude is one.
    per: f32,
    /// The smallest multiple.
    least: f32,
    usable: bool,
}

impl Unit {
    #[inline(always)]
    fn new(most: u32, least: f32) -> Self {
        let most = f32::from_bits(most);
        let usable = most.is_finite() && most >= SMALLEST;
        let size = if most.is_finite() { most / (127.0 * LARGEST) } else { f32::NAN };
        Self { size, per: if usable { LARGEST / most } else { 0.0 }, least, usable }
    }

    /// Returns the scale of a group, in units, by the bits of its largest magnitude.
    #[inline(always)]
    pub(crate) fn multiple(self, largest: u32) -> f32 {
        (f32::from_bits(largest) * self.per).ceil().clamp(self.least, LARGEST)
    }

    /// Returns what a group's activations are multiplied with to be whole numbers up to 127.
    #[inline(always)]
    pub(crate) fn inverse(self, multiple: f32) -> f32 {
        if self.usable { 1.0 / (multiple * self.size) } else { 0.0 }
    }
}
