//! What a catalog (Hive, Impala, Spark) is told of tables and partitions: by us, through Hive's metastore, or by statements that an
//! administrator runs.
//!
//! ```text
//! klieg setup ─► CREATE DATABASE, CREATE EXTERNAL TABLE                once; what exists is compared, never altered
//! klieg run   ─► folders in place ─► Change of each table ─► metastore: add, alter, drop partitions     catalog.kind: metastore
//!                                                         └► .klieg/catalog/<run>/….<engine>.sql         catalog.kind: script
//!                                 ─► _SUCCESS
//! ```
//! Partitions are added one by one: `MSCK REPAIR TABLE` fails on Spot's layout, where the result tables lie in the folder of the raw
//! table. Everything is idempotent: a publication that was killed is told again. Values of partitions are unpadded, as the integers
//! that they are.

mod gssapi;
mod metastore;
mod sasl;
mod session;
mod statements;
mod thrift;

use crate::table::catalog::DAY_KEYS;
use crate::table::catalog::HOUR_KEY;
use crate::table::catalog::Table;

pub use gssapi::ticket_life;
pub use metastore::Differences;
pub use metastore::Metastore;
pub use metastore::MetastoreError;
pub use statements::Engine;
pub use statements::create;
pub use statements::statements;

/// A published partition of a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Partition {
    /// Values of the partition columns, in their order.
    pub values: Vec<u32>,
    /// URL of its folder.
    pub location: String,
    /// Rows.
    pub rows: u64,
    /// Files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// The run that published it.
    pub run: String,
}

/// What a publication changes in a table.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// Partitions that are there, with what is in them now.
    pub there: Vec<Partition>,
    /// Values of partitions that are not there any more.
    pub gone: Vec<Vec<u32>>,
    /// URL of an empty folder, where all partitions must change at once.
    pub empty: Option<String>,
}

/// Partition columns of a table and their types.
#[must_use]
pub fn keys(table: &Table) -> Vec<(&'static str, &'static str)> {
    let hour = table.is_hourly.then_some(HOUR_KEY);
    DAY_KEYS.into_iter().chain(hour).collect()
}

/// Returns `y=2016`, `m=7`, … joined by `separator`.
fn spec(table: &Table, values: &[u32], separator: &str) -> String {
    let keys = keys(table);
    let pairs = keys.iter().zip(values);
    let pairs: Vec<_> = pairs
        .map(|((key, _), value)| format!("{key}={value}"))
        .collect();
    pairs.join(separator)
}
