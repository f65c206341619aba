//! The computations, each written once over [`crate::isa::Simd`].

pub mod gemv;
