//! What a catalog (Hive, Impala, Spark) is told of tables and partitions, as statements that an administrator runs.
//!
//! ```text
//! klieg setup ─► CREATE DATABASE, CREATE EXTERNAL TABLE      once
//! klieg run   ─► .klieg/catalog/<run>/<partition>.<engine>.sql   after each publication, with catalog.kind: script
//! ```
//! Partitions are added one by one: `MSCK REPAIR TABLE` fails on Spot's layout, where the result tables lie in the folder of the raw
//! table. Everything is idempotent. Values of partitions are unpadded, as the integers that they are.

mod statements;

pub use statements::Engine;
pub use statements::Published;
pub use statements::create;
pub use statements::partition;
