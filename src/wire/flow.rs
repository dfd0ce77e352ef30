//! One flow record, whatever format it came from.

use std::net::IpAddr;
use std::net::Ipv4Addr;

/// The address of a field that the record does not have.
pub const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A unidirectional flow record: what the `flow` table needs. Counters are as the collector stored them, that is after it
/// applied the sampling rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowRecord {
    /// Start, milliseconds since 1970 UTC; for firewall and NAT events without a start, the event's time.
    pub first_ms: u64,
    /// End, milliseconds since 1970 UTC.
    pub last_ms: u64,
    /// When the collector received it, milliseconds since 1970 UTC; 0 if not stored.
    pub received_ms: u64,
    /// Source address.
    pub src_ip: IpAddr,
    /// Destination address.
    pub dst_ip: IpAddr,
    /// Source port; 0 for ICMP.
    pub src_port: u16,
    /// Destination port; type · 256 + code for ICMP.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags, all seen or-ed.
    pub tcp_flags: u8,
    /// Forwarding status (IANA information element 89).
    pub forwarding_status: u8,
    /// Type of service of the source side.
    pub src_tos: u8,
    /// Type of service of the destination side.
    pub dst_tos: u8,
    /// 0 ingress, 1 egress.
    pub direction: u8,
    /// IANA flowEndReason (information element 136), 0 if not stored.
    pub end_reason: u8,
    /// Packets from source to destination.
    pub packets_in: u64,
    /// Bytes from source to destination.
    pub bytes_in: u64,
    /// Packets of the other direction, 0 if not stored.
    pub packets_out: u64,
    /// Bytes of the other direction, 0 if not stored.
    pub bytes_out: u64,
    /// SNMP index of the input interface.
    pub input: u32,
    /// SNMP index of the output interface.
    pub output: u32,
    /// Source autonomous system.
    pub src_as: u32,
    /// Destination autonomous system.
    pub dst_as: u32,
    /// Address of the exporter that sent the record.
    pub router_ip: IpAddr,
    /// The collector's number of the exporter, 0 if none.
    pub exporter_id: u16,
    /// True where the collector multiplied the counters by the sampling rate.
    pub sampled: bool,
}

impl Default for FlowRecord {
    fn default() -> Self {
        Self {
            first_ms: 0,
            last_ms: 0,
            received_ms: 0,
            src_ip: NO_ADDRESS,
            dst_ip: NO_ADDRESS,
            src_port: 0,
            dst_port: 0,
            protocol: 0,
            tcp_flags: 0,
            forwarding_status: 0,
            src_tos: 0,
            dst_tos: 0,
            direction: 0,
            end_reason: 0,
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            input: 0,
            output: 0,
            src_as: 0,
            dst_as: 0,
            router_ip: NO_ADDRESS,
            exporter_id: 0,
            sampled: false,
        }
    }
}

/// The fields of a flow record that no table holds; `inspect` shows them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowDetail {
    /// Prefix length of the source network.
    pub src_mask: u8,
    /// Prefix length of the destination network.
    pub dst_mask: u8,
    /// Next hop.
    pub next_hop: IpAddr,
    /// BGP next hop.
    pub bgp_next_hop: IpAddr,
    /// Source and destination VLAN.
    pub vlans: [u32; 2],
    /// in source, out destination, in destination, out source: 48 bits each.
    pub macs: [u64; 4],
    /// MPLS labels, entry · 16 + EXP · 2 + S.
    pub mpls: [u32; 10],
    /// Client, server and application latency, microseconds.
    pub latencies_us: [u64; 3],
    /// Engine type and id.
    pub engine: [u8; 2],
}

impl Default for FlowDetail {
    fn default() -> Self {
        Self {
            src_mask: 0,
            dst_mask: 0,
            next_hop: NO_ADDRESS,
            bgp_next_hop: NO_ADDRESS,
            vlans: [0; 2],
            macs: [0; 4],
            mpls: [0; 10],
            latencies_us: [0; 3],
            engine: [0; 2],
        }
    }
}
