//! The optional parts of a flow record: elements of layout 2 (`nfxV3.h`), extensions of layout 1 (`nffile.h`).

use std::net::IpAddr;
use std::net::Ipv4Addr;

use crate::wire::Error;
use crate::wire::cursor::Cursor;
use crate::wire::flow::FlowDetail;
use crate::wire::flow::FlowRecord;
use crate::wire::nfcapd::context::ipv6_of_words;

/// Reads element `id` of layout 2 into `flow` and `detail`; returns false where the id is not known.
pub(super) fn read_element(
    id: u16,
    body: &mut Cursor<'_>,
    flow: &mut FlowRecord,
    detail: Option<&mut FlowDetail>,
) -> Result<bool, Error> {
    match id {
        1 => read_generic(body, flow)?,
        2 => {
            flow.src_ip = ipv4(body)?;
            flow.dst_ip = ipv4(body)?;
        }
        3 => {
            flow.src_ip = ipv6(body)?;
            flow.dst_ip = ipv6(body)?;
        }
        4 => read_misc(body, flow, detail)?,
        5 => {
            let _aggregated_flows = body.u64()?;
            flow.packets_out = body.u64()?;
            flow.bytes_out = body.u64()?;
        }
        7 => {
            flow.src_as = body.u32()?;
            flow.dst_as = body.u32()?;
        }
        12 => flow.router_ip = ipv4(body)?,
        13 => flow.router_ip = ipv6(body)?,
        19 | 25 => {
            let event_ms = body.u64()?;
            if flow.first_ms == 0 {
                flow.first_ms = event_ms;
            }
        }
        _ => return read_detail_element(id, body, detail),
    }
    Ok(true)
}

/// `EXgenericFlow_t`.
fn read_generic(body: &mut Cursor<'_>, flow: &mut FlowRecord) -> Result<(), Error> {
    let event_ms = flow.first_ms;
    flow.first_ms = body.u64()?;
    if flow.first_ms == 0 {
        flow.first_ms = event_ms;
    }
    flow.last_ms = body.u64()?;
    flow.received_ms = body.u64()?;
    flow.packets_in = body.u64()?;
    flow.bytes_in = body.u64()?;
    flow.src_port = body.u16()?;
    flow.dst_port = body.u16()?;
    flow.protocol = body.u8()?;
    flow.tcp_flags = body.u8()?;
    flow.forwarding_status = body.u8()?;
    flow.src_tos = body.u8()?;
    Ok(())
}

/// `EXflowMisc_t`; nfdump 1.7 added end reason and fragment flags behind the original fields.
fn read_misc(
    body: &mut Cursor<'_>,
    flow: &mut FlowRecord,
    detail: Option<&mut FlowDetail>,
) -> Result<(), Error> {
    flow.input = body.u32()?;
    flow.output = body.u32()?;
    let [src_mask, dst_mask, direction, dst_tos] = body.array()?;
    flow.direction = direction;
    flow.dst_tos = dst_tos;
    if let Ok([_biflow_direction, end_reason]) = body.array::<2>() {
        flow.end_reason = end_reason;
    }
    if let Some(detail) = detail {
        detail.src_mask = src_mask;
        detail.dst_mask = dst_mask;
    }
    Ok(())
}

/// Elements that only [`FlowDetail`] holds; without one they are known and skipped.
fn read_detail_element(
    id: u16,
    body: &mut Cursor<'_>,
    detail: Option<&mut FlowDetail>,
) -> Result<bool, Error> {
    let known = matches!(id, 6 | 8..=11 | 14..=18 | 20..=24 | 26..=38);
    let Some(detail) = detail else {
        return Ok(known);
    };
    match id {
        6 => detail.vlans = [body.u32()?, body.u32()?],
        8 => detail.bgp_next_hop = ipv4(body)?,
        9 => detail.bgp_next_hop = ipv6(body)?,
        10 => detail.next_hop = ipv4(body)?,
        11 => detail.next_hop = ipv6(body)?,
        14 => read_mpls(body, detail)?,
        15 => {
            for mac in &mut detail.macs {
                *mac = body.u64()?;
            }
        }
        17 => read_latencies(body, detail)?,
        _ => {}
    }
    Ok(known)
}

fn read_mpls(body: &mut Cursor<'_>, detail: &mut FlowDetail) -> Result<(), Error> {
    for label in &mut detail.mpls {
        *label = body.u32()?;
    }
    Ok(())
}

fn read_latencies(body: &mut Cursor<'_>, detail: &mut FlowDetail) -> Result<(), Error> {
    for latency in &mut detail.latencies_us {
        *latency = body.u64()?;
    }
    Ok(())
}

/// Reads extension `id` of layout 1; returns false where the id, and so its size, is not known.
pub(super) fn read_extension(
    id: u16,
    body: &mut Cursor<'_>,
    flow: &mut FlowRecord,
    detail: &mut FlowDetail,
) -> Result<bool, Error> {
    match id {
        4 => {
            flow.input = u32::from(body.u16()?);
            flow.output = u32::from(body.u16()?);
        }
        5 => {
            flow.input = body.u32()?;
            flow.output = body.u32()?;
        }
        6 => {
            flow.src_as = u32::from(body.u16()?);
            flow.dst_as = u32::from(body.u16()?);
        }
        7 => {
            flow.src_as = body.u32()?;
            flow.dst_as = body.u32()?;
        }
        8 => {
            [
                flow.dst_tos,
                flow.direction,
                detail.src_mask,
                detail.dst_mask,
            ] = body.array()?;
        }
        14 => flow.packets_out = u64::from(body.u32()?),
        15 => flow.packets_out = body.u64()?,
        16 => flow.bytes_out = u64::from(body.u32()?),
        17 => flow.bytes_out = body.u64()?,
        23 => flow.router_ip = ipv4(body)?,
        24 => flow.router_ip = ipv6(body)?,
        27 => flow.received_ms = body.u64()?,
        37 => {
            let event_ms = body.u64()?;
            let _rest = body.take(12)?;
            if flow.first_ms == 0 {
                flow.first_ms = event_ms;
            }
        }
        _ => return read_detail_extension(id, body, detail),
    }
    Ok(true)
}

fn read_detail_extension(
    id: u16,
    body: &mut Cursor<'_>,
    detail: &mut FlowDetail,
) -> Result<bool, Error> {
    match id {
        9 => detail.next_hop = ipv4(body)?,
        10 => detail.next_hop = ipv6(body)?,
        11 => detail.bgp_next_hop = ipv4(body)?,
        12 => detail.bgp_next_hop = ipv6(body)?,
        13 => detail.vlans = [u32::from(body.u16()?), u32::from(body.u16()?)],
        20 => {
            let [in_src, out_dst, _, _] = &mut detail.macs;
            *in_src = body.u64()?;
            *out_dst = body.u64()?;
        }
        21 => {
            let [_, _, in_dst, out_src] = &mut detail.macs;
            *in_dst = body.u64()?;
            *out_src = body.u64()?;
        }
        22 => read_mpls(body, detail)?,
        25 => {
            let [_, _, engine_type, engine_id] = body.array()?;
            detail.engine = [engine_type, engine_id];
        }
        45 => read_latencies(body, detail)?,
        _ => {
            let Some(size) = skipped_extension_size(id) else {
                return Ok(false);
            };
            let _skipped = body.take(size)?;
        }
    }
    Ok(true)
}

/// Sizes of the extensions of layout 1 whose content is not used: aggregated flows, adjacent AS, firewall and NAT events.
fn skipped_extension_size(id: u16) -> Option<usize> {
    match id {
        18 | 38 => Some(4),
        19 | 26 | 39 | 47 | 48 => Some(8),
        46 => Some(12),
        41 | 42 => Some(24),
        40 => Some(32),
        43 => Some(72),
        _ => None,
    }
}

#[inline]
pub(super) fn ipv4(body: &mut Cursor<'_>) -> Result<IpAddr, Error> {
    Ok(IpAddr::V4(Ipv4Addr::from_bits(body.u32()?)))
}

#[inline]
pub(super) fn ipv6(body: &mut Cursor<'_>) -> Result<IpAddr, Error> {
    Ok(ipv6_of_words(body.array()?))
}
