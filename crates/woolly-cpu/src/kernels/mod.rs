//! The computations, each written once over [`crate::isa::Simd`].

pub(crate) mod disjoint;
pub(crate) mod gemm;
pub mod gemv;
pub(crate) mod simd;
