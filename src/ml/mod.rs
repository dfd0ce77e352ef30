//! Numeric kernels on slices; no I/O, no clock. The same input and seed give the same bits on any number of threads.

pub mod lda;
pub mod rng;
