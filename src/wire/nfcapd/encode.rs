//! Writes layout 2 (nfdump 1.7): the generator's output format.

use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::net::IpAddr;

use crate::wire::flow::FlowRecord;
use crate::wire::nfcapd::BlockHeader;
use crate::wire::nfcapd::Compression;
use crate::wire::nfcapd::Exporter;
use crate::wire::nfcapd::Statistics;

/// A block is written when it holds this much; nfdump's `WRITE_BUFFSIZE`.
const BLOCK_BYTES: usize = 1 << 20;
const RECORD_BYTES_MAX: usize = 512;
const NFDUMP_VERSION: u32 = 0x0107_0100;
const CREATOR_NFCAPD: u32 = 1;

/// Appends one flow record in layout 2 to `out`.
pub fn encode_record(flow: &FlowRecord, out: &mut Vec<u8>) {
    let start = out.len();
    let mut record = RecordBuilder::new(out, flow);
    record.generic(flow);
    record.addresses(flow.src_ip, flow.dst_ip);
    record.misc(flow);
    if flow.packets_out != 0 || flow.bytes_out != 0 {
        record.element(
            5,
            &[
                &1_u64.to_le_bytes(),
                &flow.packets_out.to_le_bytes(),
                &flow.bytes_out.to_le_bytes(),
            ],
        );
    }
    if flow.src_as != 0 || flow.dst_as != 0 {
        record.element(7, &[&flow.src_as.to_le_bytes(), &flow.dst_as.to_le_bytes()]);
    }
    match flow.router_ip {
        IpAddr::V4(ip) => record.element(12, &[&ip.to_bits().to_le_bytes()]),
        IpAddr::V6(ip) => record.element(13, &[&words_of_ipv6(ip)]),
    }
    let elements = record.elements;
    patch_record(out, start, elements);
}

struct RecordBuilder<'a> {
    out: &'a mut Vec<u8>,
    elements: u16,
}

impl<'a> RecordBuilder<'a> {
    fn new(out: &'a mut Vec<u8>, flow: &FlowRecord) -> Self {
        out.extend_from_slice(&11_u16.to_le_bytes());
        out.extend_from_slice(&[0; 6]); // size, elements, engine: size and elements are patched at the end
        out.extend_from_slice(&flow.exporter_id.to_le_bytes());
        out.extend_from_slice(&[if flow.sampled { 2 } else { 0 }, 9]);
        Self { out, elements: 0 }
    }

    fn element(&mut self, id: u16, parts: &[&[u8]]) {
        let size = parts
            .iter()
            .map(|part| part.len())
            .fold(4_usize, usize::saturating_add);
        self.out.extend_from_slice(&id.to_le_bytes());
        self.out
            .extend_from_slice(&u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes());
        for part in parts {
            self.out.extend_from_slice(part);
        }
        self.elements = self.elements.saturating_add(1);
    }

    fn generic(&mut self, flow: &FlowRecord) {
        self.element(
            1,
            &[
                &flow.first_ms.to_le_bytes(),
                &flow.last_ms.to_le_bytes(),
                &flow.received_ms.to_le_bytes(),
                &flow.packets_in.to_le_bytes(),
                &flow.bytes_in.to_le_bytes(),
                &flow.src_port.to_le_bytes(),
                &flow.dst_port.to_le_bytes(),
                &[
                    flow.protocol,
                    flow.tcp_flags,
                    flow.forwarding_status,
                    flow.src_tos,
                ],
            ],
        );
    }

    /// Both addresses in the wider family of the two.
    fn addresses(&mut self, src: IpAddr, dst: IpAddr) {
        if let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) {
            self.element(
                2,
                &[&src.to_bits().to_le_bytes(), &dst.to_bits().to_le_bytes()],
            );
        } else {
            self.element(
                3,
                &[&words_of_ipv6(to_ipv6(src)), &words_of_ipv6(to_ipv6(dst))],
            );
        }
    }

    fn misc(&mut self, flow: &FlowRecord) {
        let small = [0, 0, flow.direction, flow.dst_tos];
        self.element(
            4,
            &[
                &flow.input.to_le_bytes(),
                &flow.output.to_le_bytes(),
                &small,
            ],
        );
    }
}

fn patch_record(out: &mut [u8], start: usize, elements: u16) {
    let size = u16::try_from(out.len().saturating_sub(start)).unwrap_or(u16::MAX);
    let patch = size.to_le_bytes().into_iter().chain(elements.to_le_bytes());
    for (byte, value) in out.iter_mut().skip(start).skip(2).zip(patch) {
        *byte = value;
    }
}

fn to_ipv6(ip: IpAddr) -> std::net::Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn words_of_ipv6(ip: std::net::Ipv6Addr) -> [u8; 16] {
    ip.to_bits().rotate_left(64).to_le_bytes()
}

/// Writes one file: [`Encoder::push`] records, then [`Encoder::finish`], which completes the header.
pub struct Encoder<W> {
    writer: W,
    compression: Compression,
    block: Vec<u8>,
    records: u32,
    blocks: u32,
    offset: u64,
    statistics: Statistics,
    per_protocol: [[u64; 4]; 3],
}

impl<W: Write + Seek> Encoder<W> {
    /// Starts a file at the writer's beginning. `exporters` are written first, with their numbers.
    ///
    /// # Errors
    /// A compression other than none, LZ4 and ZSTD; I/O.
    pub fn try_new(
        mut writer: W,
        compression: Compression,
        exporters: &[(u16, Exporter)],
    ) -> io::Result<Self> {
        if matches!(compression, Compression::Lzo | Compression::Bz2) {
            let message = "nfcapd files are written uncompressed, LZ4 or ZSTD";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        writer.write_all(&[0; 40])?;
        let mut encoder = Self {
            writer,
            compression,
            block: Vec::with_capacity(BLOCK_BYTES),
            records: 0,
            blocks: 0,
            offset: 40,
            statistics: Statistics {
                first_ms: u64::MAX >> 1,
                ..Statistics::default()
            },
            per_protocol: [[0; 4]; 3],
        };
        for (id, exporter) in exporters {
            encoder.push_exporter(*id, exporter);
        }
        Ok(encoder)
    }

    /// Appends a record.
    ///
    /// # Errors
    /// I/O.
    pub fn push(&mut self, flow: &FlowRecord) -> io::Result<()> {
        if self.block.len() > BLOCK_BYTES.saturating_sub(RECORD_BYTES_MAX) {
            self.write_block()?;
        }
        encode_record(flow, &mut self.block);
        self.records = self.records.saturating_add(1);
        self.count(flow);
        Ok(())
    }

    /// Writes the last block, the appendix and the header, and returns the writer.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(mut self, created_s: u64) -> io::Result<W> {
        if self.records > 0 {
            self.write_block()?;
        }
        let appendix = self.offset;
        let blocks = self.blocks;
        self.block = self.appendix_records();
        self.records = 2;
        self.write_block()?;
        self.writer.seek(SeekFrom::Start(0))?;
        self.writer
            .write_all(&self.header(created_s, appendix, blocks))?;
        self.writer.seek(SeekFrom::End(0))?;
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn header(&self, created_s: u64, appendix: u64, blocks: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.extend_from_slice(&0xA50C_u16.to_le_bytes());
        out.extend_from_slice(&2_u16.to_le_bytes());
        out.extend_from_slice(&NFDUMP_VERSION.to_le_bytes());
        out.extend_from_slice(&created_s.to_le_bytes());
        out.extend_from_slice(&[self.compression.code(), 0]);
        out.extend_from_slice(&1_u16.to_le_bytes());
        out.extend_from_slice(&CREATOR_NFCAPD.to_le_bytes());
        out.extend_from_slice(&appendix.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&blocks.to_le_bytes());
        out
    }

    fn push_exporter(&mut self, id: u16, exporter: &Exporter) {
        let (family, ip) = match exporter.ip {
            IpAddr::V4(ip) => (2_u16, (u128::from(ip.to_bits()) << 64).to_le_bytes()),
            IpAddr::V6(ip) => (10, words_of_ipv6(ip)),
        };
        self.block.extend_from_slice(&7_u16.to_le_bytes());
        self.block.extend_from_slice(&32_u16.to_le_bytes());
        self.block
            .extend_from_slice(&exporter.version.to_le_bytes());
        self.block.extend_from_slice(&ip);
        self.block.extend_from_slice(&family.to_le_bytes());
        self.block.extend_from_slice(&id.to_le_bytes());
        self.block.extend_from_slice(&exporter.domain.to_le_bytes());
        self.records = self.records.saturating_add(1);
    }

    fn count(&mut self, flow: &FlowRecord) {
        let total = &mut self.statistics;
        total.flows = total.flows.saturating_add(1);
        total.bytes = total.bytes.saturating_add(flow.bytes_in);
        total.packets = total.packets.saturating_add(flow.packets_in);
        total.first_ms = total.first_ms.min(flow.first_ms);
        total.last_ms = total.last_ms.max(flow.last_ms);
        let column = match flow.protocol {
            6 => 0,
            17 => 1,
            1 | 58 => 2,
            _ => 3,
        };
        let values = [1, flow.bytes_in, flow.packets_in];
        for (row, value) in self.per_protocol.iter_mut().zip(values) {
            if let Some(cell) = row.get_mut(column) {
                *cell = cell.saturating_add(value);
            }
        }
    }

    /// Records of the appendix: ident and statistics.
    fn appendix_records(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&0x8001_u16.to_le_bytes());
        out.extend_from_slice(&9_u16.to_le_bytes());
        out.extend_from_slice(b"none\0");
        out.extend_from_slice(&0x8002_u16.to_le_bytes());
        out.extend_from_slice(&148_u16.to_le_bytes());
        let total = &self.statistics;
        for value in [total.flows, total.bytes, total.packets] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for value in self.per_protocol.iter().flatten() {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for value in [total.first_ms, total.last_ms, 0] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    fn write_block(&mut self) -> io::Result<()> {
        let compressed = match self.compression {
            Compression::Lz4 => lz4_flex::block::compress(&self.block),
            Compression::Zstd => zstd::bulk::compress(&self.block, 0)?,
            _ => std::mem::take(&mut self.block),
        };
        let size = u32::try_from(compressed.len()).map_err(io::Error::other)?;
        self.writer.write_all(&self.records.to_le_bytes())?;
        self.writer.write_all(&size.to_le_bytes())?;
        self.writer.write_all(&3_u16.to_le_bytes())?;
        self.writer.write_all(&0_u16.to_le_bytes())?;
        self.writer.write_all(&compressed)?;
        self.offset = self
            .offset
            .saturating_add(u64::from(size))
            .saturating_add(BlockHeader::BYTES as u64);
        self.blocks = self.blocks.saturating_add(1);
        self.records = 0;
        self.block.clear();
        Ok(())
    }
}
