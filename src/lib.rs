//! klieg finds the few connections that matter in billions of network events.
//!
//! # The way of one flow
//! ```text
//! nfcapd file ──► blocks ──► records ──► (table ──► words ──► documents ──► topics ──► scores ──► list)
//!                 engine     wire         not built yet
//! ```
//! A raw file is immutable. [`engine::source`] reads its blocks one after another, [`wire::nfcapd`] decompresses and decodes
//! several of them at once and keeps their order, so memory does not grow with the file and the result does not depend on
//! the number of threads. Every record is counted: decoded, or rejected with offset and reason.
//!
//! # Rooms
//! A module imports only from rooms below it; `tests/suite/tidy.rs` enforces it.
//! [`cli`] commands and output · [`engine`] raw files to decoded blocks · [`ml`] topic model ·
//! [`word`] records to words · [`wire`] bytes to records · [`parallel`] threads.

pub mod cli;
pub mod config;
pub mod detect;
pub mod engine;
pub mod job;
pub mod ml;
pub mod parallel;
pub mod step;
pub mod store;
pub mod synth;
pub mod table;
pub mod wire;
pub mod word;
