//! Runs work over raw files.

pub mod source;
