//! Bytes to records: decoders of raw formats, pure and total.
//!
//! Any bytes give records or an [`Error`] that names the byte offset and the value; nothing panics, nothing allocates by a
//! length that was not checked against the input. No I/O, no clock, no threads: callers bring the bytes.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cursor;
mod error;
pub mod flow;
pub mod nfcapd;
pub mod protocol;

pub use error::Error;
