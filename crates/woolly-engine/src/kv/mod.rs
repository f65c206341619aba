//! Where the keys and values of many sequences lie, who shares them, and what gives way when memory is short.
//!
//! [`BlockManager`] is a pure data structure over block numbers: it touches no tensor and no file. What has to happen to
//! contents it writes down as [`Action`]s, in order; [`KvStore::carry_out`] performs them on a
//! [`Decoder`](woolly_model::Decoder) before the next step.
//!
//! ```text
//! begin(ids, salt) -> reserve(seq, rows) -> store.carry_out(..) -> forward(computed(seq), table(seq)) -> commit(seq, ids)
//!                       ^ NoSpace: preempt another, or wait                          ... again ...    -> release(seq)
//! ```
//!
//! Equal beginnings share blocks, found by a chained hash and proved by comparing tokens; a beginning that ends inside a
//! block is shared up to the token and copied before it is written to. Under pressure, in this order: blocks that nobody
//! uses are forgotten, blocks of preempted sequences are compressed (only where that is allowed: it loses precision),
//! then written to a file, then forgotten, so that their sequence computes them again.

mod audit;
mod codec;
mod hash;
mod index;
mod ladder;
mod lists;
mod manager;
mod options;
mod page;
mod saved;
mod stats;
mod store;

pub use manager::{Action, Begun, BlockManager, NoSpace, Place, Preemption, SeqId};
pub use options::{CacheCompression, EvictionPolicy, KvOptions};
pub use saved::{Fingerprint, Restored, SessionError};
pub use stats::KvStats;
pub use store::{KvStore, StoreError};

#[cfg(test)]
mod tests;
