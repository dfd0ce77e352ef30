//! Suspicious connections: counts of a day to models, scores, orders and reasons.
//!
//! ```text
//! counts (IP, word, n) ─► corpus ─► presence models ─► p ─► half A (loud and new) ┐
//!                                └► token models ───► q ─► half B (quiet and odd) ┴► list ─► reasons
//!                                                       └► Spot's p of each flow: bound of the lowest N
//! ```
//! Letters: n flows of a group (IP, word); df hosts that have the word; D hosts; N flows · 2.

pub mod corpus;
pub mod model_file;
pub mod models;
pub mod ranking;
pub mod reason;
