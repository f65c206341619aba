//! Tests of whole models: those of the data folder against their published results, and tiny ones built here against an
//! independent implementation.

#![expect(clippy::print_stdout, reason = "measured deviations are what a reader of a test run looks for")]

mod batching;
mod cpu;
mod drive;
mod fixture;
mod generated;
mod golden;
mod hostile;
mod malformed;
mod naive;
mod refusals;
mod steps;
mod unused;
