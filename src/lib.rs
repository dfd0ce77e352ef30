//! klieg finds the few connections that matter in billions of network events.
//!
//! # The way of one flow
//! ```text
//! nfcapd file ─► blocks ─► records ─► batches by hour ─► table `flow`          step::ingest     (engine, wire, table)
//! table `flow` ─► words ─► counts per (IP, word) ─► topic models ─► scores     step::suspicious (engine, word, detect, ml)
//!              ─► lowest flows, ranked groups with reasons ─► staged ─► published                   (table, store)
//! ```
//! A raw file is immutable. [`engine::source`] reads its blocks one after another, [`wire::nfcapd`] decompresses and decodes
//! several of them at once and keeps their order, so memory does not grow with the file and the result does not depend on
//! the number of threads. Every record is counted: kept, of another day, or rejected with offset and reason. A run is a function of
//! input files, configuration, code version and seed; nothing is published before it is complete.
//!
//! # Rooms
//! A module imports only from rooms below it; `tests/suite/tidy.rs` enforces it.
//! [`cli`] commands and output · [`job`] what to run and what happened · [`step`] tables to tables · [`detect`] models, orders,
//! reasons · [`engine`] plans and the work in them, here or on workers ([`engine::cluster`]) · [`store`] files of the warehouse · [`catalog`] what Hive is told · [`synth`] labelled days · [`table`] the
//! on-disk contract · [`config`] settings · [`ml`] topic model · [`word`] records to words · [`wire`] bytes to records ·
//! [`parallel`] threads.

pub mod catalog;
pub mod cli;
pub mod column;
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
