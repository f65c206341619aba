//! The computations, each written once over [`crate::isa::Simd`].

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod disjoint;
pub(crate) mod gemm;
pub mod gemv;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod rounding;
pub(crate) mod simd;
pub(crate) mod storage;
pub(crate) mod unpacked;
