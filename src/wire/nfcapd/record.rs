//! Flow records of a block.

use crate::wire::Error;
use crate::wire::cursor::Cursor;
use crate::wire::flow::FlowDetail;
use crate::wire::flow::FlowRecord;
use crate::wire::nfcapd::Context;
use crate::wire::nfcapd::block::RawRecord;
use crate::wire::nfcapd::block::RecordHeaders;
use crate::wire::nfcapd::extension;
use crate::wire::nfcapd::header::join_ms;

const COMMON_RECORD_V0: u16 = 1;
const COMMON_RECORD: u16 = 10;
const V3_RECORD: u16 = 11;
const FLAG_IPV6: u16 = 1;
const FLAG_PACKETS_64: u16 = 2;
const FLAG_BYTES_64: u16 = 4;
const FLAG_SAMPLED: u16 = 128;
const V3_FLAG_SAMPLED: u8 = 2;
/// The shortest record in use: a sampler.
const RECORD_BYTES_MIN: usize = 16;

/// A flow record and, where asked for, its detail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// What the table holds.
    pub record: FlowRecord,
    /// The rest.
    pub detail: FlowDetail,
}

/// Iterator over the flow records of an uncompressed block. A record that cannot be decoded is an error and the next one
/// follows; a wrong record size ends the block, and [`Records::lost`] says so.
pub struct Records<'a> {
    headers: RecordHeaders<'a>,
    context: &'a Context,
    with_detail: Detail,
    unknown_elements: u64,
    unmapped: u64,
    announced: u32,
    seen: u32,
    ended: bool,
    ended_by: Option<Error>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Detail {
    Skip,
    Keep,
}

/// Returns the flow records of an uncompressed block of which the header announced `announced` records.
#[must_use]
pub fn records<'a>(block: &'a [u8], announced: u32, context: &'a Context) -> Records<'a> {
    Records {
        headers: RecordHeaders::new(block, announced),
        context,
        with_detail: Detail::Skip,
        unknown_elements: 0,
        unmapped: 0,
        announced: announced.min(u32::try_from(block.len() / RECORD_BYTES_MIN).unwrap_or(u32::MAX)),
        seen: 0,
        ended: false,
        ended_by: None,
    }
}

impl Records<'_> {
    /// Decodes [`Flow::detail`] too, which costs time.
    #[must_use]
    pub fn with_detail(mut self) -> Self {
        self.with_detail = Detail::Keep;
        self
    }

    /// Returns how many elements or extensions so far were of an unknown kind and skipped.
    #[must_use]
    pub fn unknown_elements(&self) -> u64 {
        self.unknown_elements
    }

    /// Returns how many records so far lost their optional fields because no block before them holds their extension map.
    #[must_use]
    pub fn unmapped(&self) -> u64 {
        self.unmapped
    }

    /// Returns, after the iterator has ended, why the block did not give all announced records and how many are lost; never more
    /// than could stand in its bytes.
    #[must_use]
    pub fn lost(&self) -> Option<(Error, u32)> {
        let missing = self.announced.saturating_sub(self.seen);
        if let Some(error) = self.ended_by {
            return Some((error, missing.max(1)));
        }
        let error = Error::RecordCount {
            announced: self.announced,
            found: self.seen,
        };
        (missing > 0).then_some((error, missing))
    }

    fn decode(&mut self, record: RawRecord<'_>) -> Option<Result<Flow, Error>> {
        match record.record_type {
            V3_RECORD => Some(self.decode_v3(record)),
            COMMON_RECORD | COMMON_RECORD_V0 => Some(self.decode_common(record)),
            _ => None,
        }
    }

    /// `recordHeaderV3_t` and its elements.
    #[inline]
    fn decode_v3(&mut self, raw: RawRecord<'_>) -> Result<Flow, Error> {
        let mut body = raw.body;
        let mut flow = Flow::default();
        let elements = body.u16()?;
        let engine = body.array::<2>()?;
        flow.record.exporter_id = body.u16()?;
        let [flags, _netflow_version] = body.array()?;
        flow.record.sampled = flags & V3_FLAG_SAMPLED != 0;
        flow.detail.engine = engine;
        let mut has = (false, false);
        for _ in 0..elements {
            let id = body.u16()?;
            let offset = body.offset();
            let size = body.u16()?;
            let Some(element_size) = usize::from(size).checked_sub(4) else {
                return Err(Error::RecordSize {
                    offset,
                    size,
                    remaining: body.remaining(),
                });
            };
            let mut element = body.split(element_size)?;
            has.0 |= id == 1;
            has.1 |= id == 2 || id == 3;
            let detail = (self.with_detail == Detail::Keep).then_some(&mut flow.detail);
            if !extension::read_element(id, &mut element, &mut flow.record, detail)? {
                self.unknown_elements = self.unknown_elements.saturating_add(1);
            }
        }
        let what = match has {
            (true, true) => return Ok(flow),
            (false, _) => "counters",
            (true, false) => "addresses",
        };
        Err(Error::Incomplete {
            offset: raw.offset,
            what,
        })
    }

    /// `common_record_t` (type 10) and its older form (type 1), then required and mapped extensions.
    fn decode_common(&mut self, raw: RawRecord<'_>) -> Result<Flow, Error> {
        let mut body = raw.body;
        let mut flow = Flow::default();
        let (flags, old_exporter) = if raw.record_type == COMMON_RECORD_V0 {
            let [flags, exporter] = body.array()?;
            (u16::from(flags), u16::from(exporter))
        } else {
            (body.u16()?, 0)
        };
        let map_id = body.u16()?;
        read_common(&mut body, &mut flow.record)?;
        flow.record.exporter_id = old_exporter;
        if raw.record_type == COMMON_RECORD {
            flow.record.exporter_id = body.u16()?;
            let _reserved = body.u16()?;
        }
        flow.record.sampled = flags & FLAG_SAMPLED != 0;
        read_required(flags, &mut body, &mut flow.record)?;
        // Its map was lost with a damaged block: addresses, ports, times and counters do not need it.
        let Some(map) = self.context.map(map_id) else {
            self.unmapped = self.unmapped.saturating_add(1);
            return Ok(flow);
        };
        for &id in map.iter() {
            let Flow { record, detail } = &mut flow;
            if !extension::read_extension(id, &mut body, record, detail)? {
                self.unknown_elements = self.unknown_elements.saturating_add(1);
                break;
            }
        }
        Ok(flow)
    }
}

/// The fixed part of a record of layout 1 behind flags and map.
fn read_common(body: &mut Cursor<'_>, flow: &mut FlowRecord) -> Result<(), Error> {
    let first_msec = body.u16()?;
    let last_msec = body.u16()?;
    flow.first_ms = join_ms(body.u32()?, first_msec);
    flow.last_ms = join_ms(body.u32()?, last_msec);
    flow.forwarding_status = body.u8()?;
    flow.tcp_flags = body.u8()?;
    flow.protocol = body.u8()?;
    flow.src_tos = body.u8()?;
    flow.src_port = body.u16()?;
    flow.dst_port = body.u16()?;
    Ok(())
}

/// Extensions 1 to 3: addresses, packets, bytes, as the flags say.
fn read_required(flags: u16, body: &mut Cursor<'_>, flow: &mut FlowRecord) -> Result<(), Error> {
    if flags & FLAG_IPV6 == 0 {
        flow.src_ip = extension::ipv4(body)?;
        flow.dst_ip = extension::ipv4(body)?;
    } else {
        flow.src_ip = extension::ipv6(body)?;
        flow.dst_ip = extension::ipv6(body)?;
    }
    flow.packets_in = counter(body, flags & FLAG_PACKETS_64 != 0)?;
    flow.bytes_in = counter(body, flags & FLAG_BYTES_64 != 0)?;
    Ok(())
}

fn counter(body: &mut Cursor<'_>, wide: bool) -> Result<u64, Error> {
    if wide {
        body.u64()
    } else {
        body.u32().map(u64::from)
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Flow, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.headers.next() {
                None => self.ended = true,
                Some(Err(error)) => {
                    self.ended = true;
                    self.ended_by = Some(error);
                }
                Some(Ok(raw)) => {
                    self.seen = self.seen.saturating_add(1);
                    if let Some(flow) = self.decode(raw) {
                        return Some(flow);
                    }
                }
            }
        }
        None
    }
}
