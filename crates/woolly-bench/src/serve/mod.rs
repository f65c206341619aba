//! Replays arrivals of requests on a serving engine: how long people wait, and what the machine does meanwhile.

mod replay;
mod report;
mod trace;

pub use replay::{Batching, ServeOptions};
pub use report::{Percentiles, ServeReport};
pub use trace::{Arrival, Generator, Trace};
