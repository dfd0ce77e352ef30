//! All integration tests, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod eval;
mod inspect;
mod lda;
mod mutation;
mod nfcapd;
mod support;
mod tidy;
mod words;
