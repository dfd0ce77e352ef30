//! Raw files to tables, tables to counts and rows: the work that runs in plans.

mod hour_writer;
pub mod ingest;
pub mod probe;
pub mod session;
pub mod source;
pub mod task;
pub mod words;
