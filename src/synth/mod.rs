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

/// Records of a day of size 1 (1,200 workstations and what belongs to them) by measurement: of hosts whose number follows the
/// size, and of servers, whose number follows its root.
const FLOWS_OF_HOSTS: f64 = 2_234_000.0;
const FLOWS_OF_SERVERS: f64 = 639_000.0;

/// Records of the attacks, which do not shrink with the day.
const ATTACK_RECORDS: u64 = 21_000;

/// Returns the size of a site that makes about so many records: the root of a quadratic in √size.
fn scale(flows: f64) -> f64 {
    let root = (FLOWS_OF_SERVERS.powi(2) + 4.0 * FLOWS_OF_HOSTS * flows).sqrt() - FLOWS_OF_SERVERS;
    (root / (2.0 * FLOWS_OF_HOSTS)).powi(2)
}

/// Generates a day.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a size")]
pub fn generate(params: &SynthParams) -> SynthDay {
    let scale = scale(params.flows.saturating_sub(ATTACK_RECORDS).max(1) as f64);
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
