//! Records to words, pure: what Apache Spot calls a word is one connection with everything about it made coarse.
//!
//! Inside plans a word is a packed number ([`flow::FlowWord`]); its text is made only where somebody reads it.

pub mod bins;
pub mod filter;
pub mod flow;

/// Whose arithmetic: Spot's where it is wrong by its own intent, or the mended one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compat {
    /// Bit for bit what Spot computes.
    Spot,
    /// What it means to compute.
    Mended,
}
