//! What earlier blocks say about later ones: extension maps (layout 1), exporters and samplers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::wire::Error;
use crate::wire::cursor::Cursor;
use crate::wire::nfcapd::block::RecordHeaders;

const EXTENSION_MAP: u16 = 2;
const EXPORTER_INFO: u16 = 7;
const SAMPLER_LEGACY: u16 = 9;
const SAMPLER: u16 = 15;
/// Bytes of a sampler's body, as nfdump 1.7 writes it; releases between wrote that of 1.6 under the new number.
const SAMPLER_BYTES: usize = 20;
const FLOW_TYPES: [u16; 3] = [1, 10, 11];
const FAMILY_IPV4: u16 = 2;
const FAMILY_IPV6: u16 = 10;

/// The most extensions of a map.
const MAP_IDS_MAX: usize = 64;

/// An exporter that the collector saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exporter {
    /// Its address.
    pub ip: IpAddr,
    /// NetFlow version of its packets.
    pub version: u32,
    /// Its source id or observation domain.
    pub domain: u32,
}

/// The state of a file up to some block. Cloning is cheap; a clone stays as it was.
#[derive(Clone, Debug, Default)]
pub struct Context {
    maps: Arc<BTreeMap<u16, Arc<[u16]>>>,
    exporters: Arc<BTreeMap<u16, Exporter>>,
    sampling: Arc<BTreeMap<u16, u32>>,
    unknown_records: u64,
    /// Maps and samplers that were met since the start, which may be that of a part of a file.
    met: [Arc<BTreeSet<u16>>; 2],
}

/// What blocks say that decides how flows of later ones are decoded.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sayings {
    maps: BTreeMap<u16, Vec<u16>>,
    sampling: BTreeMap<u16, u32>,
}

impl Sayings {
    /// Adds what later blocks say.
    pub fn extend(&mut self, later: &Self) {
        self.maps.extend(later.maps.clone());
        self.sampling.extend(&later.sampling);
    }
}

impl Context {
    /// Returns the state before a block that is not the first, of what those before it say.
    #[must_use]
    pub fn after(earlier: &Sayings) -> Self {
        let maps = earlier.maps.iter().map(|(&id, ids)| (id, ids[..].into()));
        Self {
            maps: Arc::new(maps.collect()),
            sampling: Arc::new(earlier.sampling.clone()),
            ..Self::default()
        }
    }

    /// Returns what the blocks said that were scanned.
    #[must_use]
    pub fn said(&self) -> Sayings {
        let [maps, samplers] = &self.met;
        let map = |id: &u16| Some((*id, self.maps.get(id)?.to_vec()));
        let sampler = |id: &u16| Some((*id, *self.sampling.get(id)?));
        Sayings {
            maps: maps.iter().filter_map(map).collect(),
            sampling: samplers.iter().filter_map(sampler).collect(),
        }
    }

    /// Collects the records of an uncompressed block that are not flows. Call it for every block, in file order.
    ///
    /// Damage is not reported here: decoding the block's flows meets it again.
    pub fn scan(&mut self, block: &[u8], announced: u32) {
        let mut headers = RecordHeaders::new(block, announced);
        while let Some(Ok(record)) = headers.next() {
            if FLOW_TYPES.contains(&record.record_type) {
                continue;
            }
            let kept = match record.record_type {
                EXTENSION_MAP => self.add_map(record.body),
                EXPORTER_INFO => self.add_exporter(record.body),
                SAMPLER_LEGACY => self.add_sampler_legacy(record.body),
                SAMPLER if record.body.remaining() < SAMPLER_BYTES => {
                    self.add_sampler_legacy(record.body)
                }
                SAMPLER => self.add_sampler(record.body),
                _ => Ok(false),
            };
            if !matches!(kept, Ok(true)) {
                self.unknown_records = self.unknown_records.saturating_add(1);
            }
        }
    }

    /// Returns the extension ids of map `id`, in record order.
    pub(super) fn map(&self, id: u16) -> Option<&Arc<[u16]>> {
        self.maps.get(&id)
    }

    /// Returns the exporters by the collector's number.
    #[must_use]
    pub fn exporters(&self) -> &BTreeMap<u16, Exporter> {
        &self.exporters
    }

    /// Returns the sampling interval of exporter `id`: one packet of so many was looked at; 1 if none was announced.
    #[must_use]
    pub fn sampling(&self, id: u16) -> u32 {
        self.sampling.get(&id).copied().unwrap_or(1)
    }

    /// Returns how many records were neither flows nor of a kind that is used.
    #[must_use]
    pub fn unknown_records(&self) -> u64 {
        self.unknown_records
    }

    fn add_map(&mut self, mut body: Cursor<'_>) -> Result<bool, Error> {
        let id = body.u16()?;
        let _extension_size = body.u16()?;
        let mut ids = Vec::new();
        while body.remaining() >= 2 {
            let extension = body.u16()?;
            if extension == 0 {
                break;
            }
            // Required extensions are found by the record's flags.
            if extension > 3 {
                ids.push(extension);
            }
            // nfdump 1.6 knows half as many; a longer map is made to cost time in every record.
            if ids.len() > MAP_IDS_MAX {
                return Ok(false);
            }
        }
        Arc::make_mut(&mut self.maps).insert(id, ids.into());
        Arc::make_mut(&mut self.met[0]).insert(id);
        Ok(true)
    }

    fn add_exporter(&mut self, mut body: Cursor<'_>) -> Result<bool, Error> {
        let version = body.u32()?;
        let ip = body.array::<16>()?;
        let family = body.u16()?;
        let id = body.u16()?;
        let domain = body.u32()?;
        let ip = match family {
            FAMILY_IPV4 => ipv4_in_union(ip),
            FAMILY_IPV6 => ipv6_of_words(ip),
            // nfdump 1.7.3 and later leave the family out and write network order, IPv4 as IPv4-mapped IPv6.
            0 => IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(),
            _ => return Ok(false),
        };
        let exporter = Exporter {
            ip,
            version,
            domain,
        };
        Arc::make_mut(&mut self.exporters).insert(id, exporter);
        Ok(true)
    }

    /// `sampler_info_record_t` of nfdump 1.6.
    fn add_sampler_legacy(&mut self, mut body: Cursor<'_>) -> Result<bool, Error> {
        let _id = body.u32()?;
        let interval = body.u32()?;
        let _mode = body.u16()?;
        let exporter = body.u16()?;
        self.set_sampling(exporter, interval);
        Ok(true)
    }

    /// `sampler_record_t` of nfdump 1.7: one of `interval + space` packets (RFC 5477, systematic count-based sampling).
    fn add_sampler(&mut self, mut body: Cursor<'_>) -> Result<bool, Error> {
        let exporter = body.u16()?;
        let _algorithm = body.u16()?;
        let _id = body.u64()?;
        let packets = body.u32()?;
        let space = body.u32()?;
        let rate = packets.saturating_add(space).checked_div(packets);
        self.set_sampling(exporter, rate.unwrap_or(1));
        Ok(true)
    }

    fn set_sampling(&mut self, exporter: u16, interval: u32) {
        Arc::make_mut(&mut self.sampling).insert(exporter, interval.max(1));
        Arc::make_mut(&mut self.met[1]).insert(exporter);
    }
}

/// An IPv4 address in nfdump's `ip_addr_t`: the third 32-bit word.
fn ipv4_in_union(bytes: [u8; 16]) -> IpAddr {
    let [_, _, _, _, _, _, _, _, a, b, c, d, _, _, _, _] = bytes;
    IpAddr::V4(Ipv4Addr::from_bits(u32::from_le_bytes([a, b, c, d])))
}

/// An IPv6 address as nfdump keeps it: two 64-bit words in the machine's byte order, high word first.
pub(super) fn ipv6_of_words(bytes: [u8; 16]) -> IpAddr {
    let words = u128::from_le_bytes(bytes);
    IpAddr::V6(Ipv6Addr::from_bits(words.rotate_left(64)))
}

#[cfg(test)]
mod tests {
    use super::Context;

    /// Records as the structs of nfdump's `exporter.h` lay them out on a little-endian machine.
    #[test]
    fn samplers_of_each_layout() {
        let new = |exporter: u16, packets: u32, space: u32| {
            let mut record = Vec::new();
            for part in [15_u16, 24, exporter, 1] {
                record.extend(part.to_le_bytes());
            }
            record.extend((-1_i64).to_le_bytes());
            record.extend(packets.to_le_bytes());
            record.extend(space.to_le_bytes());
            record
        };
        let old = |kind: u16, exporter: u16, interval: u32| {
            let mut record = Vec::new();
            record.extend(kind.to_le_bytes());
            record.extend(16_u16.to_le_bytes());
            record.extend(7_u32.to_le_bytes());
            record.extend(interval.to_le_bytes());
            record.extend(1_u16.to_le_bytes());
            record.extend(exporter.to_le_bytes());
            record
        };
        let records = [
            new(1, 1, 99),
            new(2, 2, 18),
            new(3, 0, 5),
            old(9, 4, 500),
            old(15, 5, 0),
            old(15, 6, 64),
        ];
        let mut context = Context::default();
        context.scan(&records.concat(), 6);
        let rates: Vec<u32> = (0..=6).map(|exporter| context.sampling(exporter)).collect();
        assert_eq!(rates, [1, 100, 10, 1, 500, 1, 64]);
        assert_eq!(context.unknown_records(), 0);
    }
}
