//! Conversations to unidirectional records, as exporters make them.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use crate::synth::Labelled;
use crate::synth::dice::Dice;
use crate::synth::site;
use crate::synth::site::Site;
use crate::table::hive::DAY_MS;
use crate::wire::flow::FlowRecord;

/// Exporters cut a long conversation this often.
const ACTIVE_TIMEOUT_MS: u64 = 300_000;
/// Addresses of the exporters core, data centre, edge; their numbers are 1, 2, 3.
pub(super) const EXPORTERS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 255, 0, 1),
    Ipv4Addr::new(10, 255, 0, 2),
    Ipv4Addr::new(10, 255, 0, 3),
];
const TCP: u8 = 6;
const HEADER_BYTES: f64 = 40.0;

/// One conversation, seen from its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    pub(super) start_ms: u64,
    pub(super) duration_ms: u64,
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    pub(super) client_port: u16,
    pub(super) server_port: u16,
    pub(super) protocol: u8,
    pub(super) bytes_up: f64,
    pub(super) bytes_down: f64,
    /// Payload of a full packet.
    pub(super) packet_bytes: f64,
    pub(super) attack: Option<u16>,
}

/// Collects records.
pub(super) struct Sink<'a> {
    pub(super) site: &'a Site,
    pub(super) day_start_ms: u64,
    pub(super) records: Vec<Labelled>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(site: &'a Site, day_start_ms: u64) -> Self {
        Self {
            site,
            day_start_ms,
            records: Vec::new(),
        }
    }

    /// Adds both directions; conversations that start after the day are left out.
    pub(super) fn talk(&mut self, talk: &Talk, dice: &mut Dice) {
        if talk.start_ms >= self.day_start_ms + DAY_MS {
            return;
        }
        let up = Direction {
            bytes: talk.bytes_up,
            from_client: true,
        };
        self.direction(talk, &up, dice);
        if talk.bytes_down > 0.0 {
            let down = Direction {
                bytes: talk.bytes_down,
                from_client: false,
            };
            self.direction(talk, &down, dice);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes of generated flows"
    )]
    fn direction(&mut self, talk: &Talk, direction: &Direction, dice: &mut Dice) {
        let pieces = talk.duration_ms / ACTIVE_TIMEOUT_MS + 1;
        let handshake = if talk.protocol == TCP { 3.0 } else { 0.0 };
        for piece in 0..pieces {
            let share = 1.0 / pieces as f64;
            let payload = direction.bytes * share;
            let packets = (payload / talk.packet_bytes).ceil().max(1.0)
                + if pieces == 1 { handshake } else { 0.0 };
            let bytes = payload + packets * HEADER_BYTES;
            let first_ms = talk.start_ms
                + piece * ACTIVE_TIMEOUT_MS
                + u64::from(!direction.from_client) * dice.below(40);
            let last_ms = (talk.start_ms + talk.duration_ms)
                .min(first_ms + ACTIVE_TIMEOUT_MS)
                .max(first_ms);
            let exporter = exporter(talk);
            let record = FlowRecord {
                first_ms,
                last_ms,
                packets_in: packets as u64,
                bytes_in: bytes as u64,
                tcp_flags: flags(talk, pieces),
                exporter_id: exporter as u16 + 1,
                router_ip: IpAddr::V4(EXPORTERS[exporter]),
                ..ends(talk, direction.from_client)
            };
            let sent_ms = last_ms + dice.below(60_000);
            let record = FlowRecord {
                received_ms: sent_ms,
                ..record
            };
            self.records.push(Labelled {
                sent_ms,
                record,
                attack: talk.attack,
            });
        }
    }
}

struct Direction {
    bytes: f64,
    from_client: bool,
}

fn flags(talk: &Talk, pieces: u64) -> u8 {
    match (talk.protocol, talk.bytes_down > 0.0, pieces) {
        (TCP, false, _) => 2,
        (TCP, true, 1) => 27,
        (TCP, true, _) => 24,
        _ => 0,
    }
}

fn ends(talk: &Talk, from_client: bool) -> FlowRecord {
    let ends = [
        (talk.client, talk.client_port),
        (talk.server, talk.server_port),
    ];
    let [source, destination] = if from_client {
        ends
    } else {
        [ends[1], ends[0]]
    };
    FlowRecord {
        src_ip: source.0,
        dst_ip: destination.0,
        src_port: source.1,
        dst_port: destination.1,
        protocol: talk.protocol,
        direction: u8::from(!from_client),
        input: if from_client { 1 } else { 2 },
        output: if from_client { 2 } else { 1 },
        ..FlowRecord::default()
    }
}

/// Edge for what crosses it, data centre for what touches a server there, core for the rest.
fn exporter(talk: &Talk) -> usize {
    let is_server = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.octets()[..2] == [10, 2]);
    if !site::is_inside(talk.client) || !site::is_inside(talk.server) {
        2
    } else if is_server(talk.client) || is_server(talk.server) {
        1
    } else {
        0
    }
}
