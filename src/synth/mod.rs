//! Synthetic labelled days: the traffic of an office and a data centre with attacks hidden in it, as nfcapd files.
//!
//! ```text
//! (seed, date, size) ─► site ─► services of each host ─► conversations ─► records (cut by the active timeout) ─► files by the
//!                            └► attacks ──────────────────┘                 minute in which their exporter sends them
//! ```
//! Everything is a function of (seed, date, host): no host's traffic depends on another's. The ordinary traffic holds what makes
//! detection hard: benign beacons, night jobs, backups, rare ports, a scanner of the house, one-off visits, heavy tails.

mod attack;
mod dice;
mod service;
mod site;
mod traffic;
mod write;

use crate::table::hive::Day;
use crate::wire::flow::FlowRecord;

pub use attack::Attack;
pub use site::Site;
pub use write::WriteError;
pub use write::Written;
pub use write::write;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SynthParams {
    /// The day.
    pub day: Day,
    /// About so many records.
    pub flows: u64,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// A record with its truth.
#[derive(Clone, Copy, Debug)]
pub struct Labelled {
    /// When its exporter sends it, milliseconds since 1970: decides the file.
    pub sent_ms: u64,
    /// The record.
    pub record: FlowRecord,
    /// Index into [`SynthDay::attacks`]; `None` for ordinary traffic.
    pub attack: Option<u16>,
}

/// A generated day.
#[derive(Debug)]
pub struct SynthDay {
    /// Who is there.
    pub site: Site,
    /// What is hidden.
    pub attacks: Vec<Attack>,
    /// Records by sending time.
    pub records: Vec<Labelled>,
}

/// Records of a day at full size: 1,200 workstations and everything that belongs to them.
const FLOWS_AT_FULL_SIZE: f64 = 1_150_000.0;

/// Generates a day.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a size")]
pub fn generate(params: &SynthParams) -> SynthDay {
    let scale = params.flows as f64 / FLOWS_AT_FULL_SIZE;
    let site = Site::new(scale, params.seed, params.day);
    let mut sink = traffic::Sink::new(&site, params.day.start_ms());
    service::ordinary(&site, params, &mut sink);
    service::noise(&site, params, &mut sink);
    let attacks = attack::hide(&site, params, &mut sink);
    let mut records = sink.records;
    records.sort_by_key(|labelled| (labelled.sent_ms, labelled.record.first_ms));
    SynthDay {
        site,
        attacks,
        records,
    }
}
