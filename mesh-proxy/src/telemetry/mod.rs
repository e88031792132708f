//! Counting: per-worker shards, summed by whoever reads.

pub(crate) mod access_log;
mod edges;

pub(crate) use self::edges::{EdgeStats, Outcome, Shard};
