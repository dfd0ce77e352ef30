//! The on-disk contract: schemas, Hive paths, Parquet settings, records to batches, text results.

pub mod catalog;
pub mod flow;
pub mod hive;
pub mod parquet;
pub mod period;
pub mod suspicious;
