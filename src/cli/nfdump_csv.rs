//! The 48 columns of `nfdump -o csv` (1.7.1), so that one can compare line by line. Times are UTC.

use std::net::IpAddr;

use chrono::DateTime;

use crate::wire::flow::FlowRecord;
use crate::wire::nfcapd::Flow;
use crate::wire::protocol;

/// The header line.
pub(super) const COLUMNS: [&str; 48] = [
    "ts", "te", "td", "sa", "da", "sp", "dp", "pr", "flg", "fwd", "stos", "ipkt", "ibyt", "opkt",
    "obyt", "in", "out", "sas", "das", "smk", "dmk", "dtos", "dir", "nh", "nhb", "svln", "dvln",
    "ismc", "odmc", "idmc", "osmc", "mpls1", "mpls2", "mpls3", "mpls4", "mpls5", "mpls6", "mpls7",
    "mpls8", "mpls9", "mpls10", "cl", "sl", "al", "ra", "eng", "exid", "tr",
];

/// Returns the fields of one flow.
pub(super) fn fields(flow: &Flow) -> Vec<String> {
    let Flow { record, detail } = flow;
    let mut out = vec![
        second(record.first_ms),
        second(record.last_ms),
        duration(record),
        address(record.src_ip),
        address(record.dst_ip),
        record.src_port.to_string(),
        record.dst_port.to_string(),
        protocol_name(record.protocol),
        tcp_flags(record.tcp_flags),
    ];
    let numbers = [
        u64::from(record.forwarding_status),
        u64::from(record.src_tos),
        record.packets_in,
        record.bytes_in,
        record.packets_out,
        record.bytes_out,
        u64::from(record.input),
        u64::from(record.output),
        u64::from(record.src_as),
        u64::from(record.dst_as),
        u64::from(detail.src_mask),
        u64::from(detail.dst_mask),
        u64::from(record.dst_tos),
        u64::from(record.direction),
    ];
    out.extend(numbers.map(|number| number.to_string()));
    out.extend([address(detail.next_hop), address(detail.bgp_next_hop)]);
    out.extend(detail.vlans.map(|vlan| vlan.to_string()));
    out.extend(detail.macs.map(mac));
    out.extend(detail.mpls.map(mpls));
    out.extend(detail.latencies_us.map(latency));
    let [engine_type, engine_id] = detail.engine;
    out.extend([
        address(record.router_ip),
        format!("{engine_type}/{engine_id}"),
        record.exporter_id.to_string(),
        millisecond(record.received_ms),
    ]);
    out
}

fn time(ms: u64, format: &str) -> String {
    let time = i64::try_from(ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| ms.to_string(), |time| time.format(format).to_string())
}

/// `2016-07-08 00:00:00`; a time beyond the calendar is printed as its milliseconds.
pub(super) fn second(ms: u64) -> String {
    time(ms, "%Y-%m-%d %H:%M:%S")
}

fn millisecond(ms: u64) -> String {
    time(ms, "%Y-%m-%d %H:%M:%S%.3f")
}

/// Seconds from first to last; negative where the exporter says so, 0 where an end is unknown.
pub(super) fn duration(record: &FlowRecord) -> String {
    let ms = i128::from(record.last_ms) - i128::from(record.first_ms);
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

fn address(ip: IpAddr) -> String {
    ip.to_string()
}

/// The protocol's name, or its number where it has none.
pub(super) fn protocol_name(number: u8) -> String {
    protocol::name(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// Eight letters CEUAPRSF, dots for what is not set.
fn tcp_flags(flags: u8) -> String {
    let letters = "CEUAPRSF".chars().enumerate();
    letters
        .map(|(index, letter)| {
            if flags & (128 >> index) == 0 {
                '.'
            } else {
                letter
            }
        })
        .collect()
}

fn mac(address: u64) -> String {
    let [_, _, a, b, c, d, e, f] = address.to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn mpls(entry: u32) -> String {
    format!("{}-{}-{}", entry >> 4, (entry >> 1) & 7, entry & 1)
}

/// Milliseconds, nine places wide.
fn latency(us: u64) -> String {
    format!("{:>9}", format!("{}.{:03}", us / 1000, us % 1000))
}
