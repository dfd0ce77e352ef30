//! All integration tests, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod catalog;
mod cluster;
mod config;
mod demo;
mod detect;
mod doctor;
mod eval;
mod hadoop_conf;
mod hdfs;
mod hours;
mod inspect;
mod keys;
mod kills;
mod lda;
mod memory;
mod metastore;
mod mutation;
mod network;
mod nfcapd;
mod operators;
mod pieces;
mod publish;
mod rerun;
mod results;
mod run;
mod schedulers;
mod strangers;
mod support;
mod synth;
mod tidy;
mod training;
mod versions;
mod words;
mod yarn;
