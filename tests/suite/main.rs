//! All integration tests, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod catalog;
mod config;
mod detect;
mod eval;
mod hadoop_conf;
mod hdfs;
mod inspect;
mod lda;
mod mutation;
mod nfcapd;
mod publish;
mod rerun;
mod results;
mod run;
mod support;
mod synth;
mod tidy;
mod words;
