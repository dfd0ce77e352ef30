//! File header, and the statistics that the writer left: after the header in layout 1, in the appendix block in layout 2.

use crate::wire::Error;
use crate::wire::cursor::Cursor;

/// Bytes of header and statistics of layout 1; also the most that [`Header::decode`] needs.
pub const LAYOUT1_PREFIX_BYTES: usize = 276;
const LAYOUT2_HEADER_BYTES: usize = 40;
const MAGIC: u16 = 0xA50C;
const IDENT_BYTES: usize = 128;
const TYPE_STAT: u16 = 0x8002;

/// How the blocks of a file are compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZO1X.
    Lzo,
    /// bzip2.
    Bz2,
    /// LZ4 raw block.
    Lz4,
    /// Zstandard frame.
    Zstd,
}

impl Compression {
    /// Returns the name that `inspect` shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lzo => "lzo",
            Self::Bz2 => "bz2",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Returns the number of layout 2's header field.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lzo => 1,
            Self::Bz2 => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Flags of layout 1: 1 LZO, 8 bzip2, 16 LZ4.
    fn of_layout1(flags: u32) -> Result<Self, Error> {
        match flags & 0x19 {
            0 => Ok(Self::None),
            1 => Ok(Self::Lzo),
            8 => Ok(Self::Bz2),
            16 => Ok(Self::Lz4),
            method => Err(Error::Compression { method }),
        }
    }

    fn of_layout2(code: u8) -> Result<Self, Error> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Lzo),
            2 => Ok(Self::Bz2),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            method => Err(Error::Compression {
                method: u32::from(method),
            }),
        }
    }
}

/// What the writer counted. Not trusted: only shown, compared with what was decoded, and used as a hint of the time range.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Flow records.
    pub flows: u64,
    /// Bytes of all flows.
    pub bytes: u64,
    /// Packets of all flows.
    pub packets: u64,
    /// Start of the earliest flow, milliseconds since 1970; 0 if not known.
    pub first_ms: u64,
    /// End of the latest flow, milliseconds since 1970; 0 if not known.
    pub last_ms: u64,
    /// Lost export packets.
    pub sequence_failures: u64,
}

/// A decoded file header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// 1 or 2.
    pub layout: u16,
    /// Compression of the blocks.
    pub compression: Compression,
    /// Blocks, as announced; 0 in a file that was never closed.
    pub blocks: u32,
    /// Where the first block starts.
    pub blocks_start: u64,
    /// Layout 2: where the appendix starts, that is the end of the data blocks; 0 if there is none.
    pub appendix: u64,
    /// Layout 2: blocks of the appendix.
    pub appendix_blocks: u16,
    /// Layout 2: creation time, seconds since 1970.
    pub created_s: u64,
    /// Name of the collector's identity, layout 1 only.
    pub ident: String,
    /// Statistics, layout 1 only; layout 2 has them in the appendix ([`decode_appendix`]).
    pub statistics: Option<Statistics>,
}

impl Header {
    /// Decodes the start of a file: give it the first [`LAYOUT1_PREFIX_BYTES`] or all there is.
    ///
    /// # Errors
    /// Not an nfcapd file, a layout or compression that is not known, or fewer bytes than the header has.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, 0);
        let magic = cursor.u16()?;
        if magic == MAGIC.swap_bytes() {
            return Err(Error::BigEndian);
        }
        if magic != MAGIC {
            return Err(Error::Magic { found: magic });
        }
        match cursor.u16()? {
            1 => Self::decode_layout1(cursor),
            2 => Self::decode_layout2(cursor),
            version => Err(Error::Layout { version }),
        }
    }

    fn decode_layout1(mut cursor: Cursor<'_>) -> Result<Self, Error> {
        let compression = Compression::of_layout1(cursor.u32()?)?;
        let blocks = cursor.u32()?;
        let ident = text(cursor.take(IDENT_BYTES)?);
        let statistics = decode_statistics1(&mut cursor)?;
        Ok(Self {
            layout: 1,
            compression,
            blocks,
            blocks_start: LAYOUT1_PREFIX_BYTES as u64,
            appendix: 0,
            appendix_blocks: 0,
            created_s: 0,
            ident,
            statistics: Some(statistics),
        })
    }

    fn decode_layout2(mut cursor: Cursor<'_>) -> Result<Self, Error> {
        let _nfdump_version = cursor.u32()?;
        let created_s = cursor.u64()?;
        let compression = cursor.u8()?;
        let encryption = cursor.u8()?;
        let appendix_blocks = cursor.u16()?;
        let _creator = cursor.u32()?;
        let appendix = cursor.u64()?;
        let _block_size = cursor.u32()?;
        let blocks = cursor.u32()?;
        if encryption != 0 {
            return Err(Error::Encrypted { method: encryption });
        }
        Ok(Self {
            layout: 2,
            compression: Compression::of_layout2(compression)?,
            blocks,
            blocks_start: LAYOUT2_HEADER_BYTES as u64,
            appendix: if appendix_blocks == 0 { 0 } else { appendix },
            appendix_blocks,
            created_s,
            ident: String::new(),
            statistics: None,
        })
    }

    /// Returns where the data blocks of a file of `file_bytes` end: at the appendix where the header names a possible one.
    #[must_use]
    pub fn blocks_end(&self, file_bytes: u64) -> u64 {
        if self.appendix >= self.blocks_start && self.appendix < file_bytes {
            self.appendix
        } else {
            file_bytes
        }
    }
}

/// `stat_record_t` of nfdump 1.6: 15 counters of 64 bits, times in seconds with milliseconds apart.
fn decode_statistics1(cursor: &mut Cursor<'_>) -> Result<Statistics, Error> {
    let (flows, bytes, packets) = decode_totals(cursor)?;
    let first_s = cursor.u32()?;
    let last_s = cursor.u32()?;
    let first_msec = cursor.u16()?;
    let last_msec = cursor.u16()?;
    let sequence_failures = u64::from(cursor.u32()?);
    Ok(Statistics {
        flows,
        bytes,
        packets,
        first_ms: join_ms(first_s, first_msec),
        last_ms: join_ms(last_s, last_msec),
        sequence_failures,
    })
}

/// The first 15 counters of both statistics records; those per protocol are skipped.
fn decode_totals(cursor: &mut Cursor<'_>) -> Result<(u64, u64, u64), Error> {
    let flows = cursor.u64()?;
    let bytes = cursor.u64()?;
    let packets = cursor.u64()?;
    let _per_protocol = cursor.take(12 * 8)?;
    Ok((flows, bytes, packets))
}

pub(super) fn join_ms(seconds: u32, milliseconds: u16) -> u64 {
    u64::from(seconds)
        .saturating_mul(1000)
        .saturating_add(u64::from(milliseconds))
}

/// Decodes the records of an uncompressed appendix block of layout 2 and returns the statistics among them.
///
/// # Errors
/// A record that ends outside the block.
pub fn decode_appendix(block: &[u8]) -> Result<Option<Statistics>, Error> {
    let mut cursor = Cursor::new(block, 0);
    while cursor.remaining() > 0 {
        let offset = cursor.offset();
        let record_type = cursor.u16()?;
        let size = cursor.u16()?;
        let Some(body_size) = usize::from(size).checked_sub(4) else {
            return Err(Error::RecordSize {
                offset,
                size,
                remaining: cursor.remaining(),
            });
        };
        let mut body = cursor.split(body_size)?;
        if record_type == TYPE_STAT {
            let (flows, bytes, packets) = decode_totals(&mut body)?;
            let first_ms = body.u64()?;
            let last_ms = body.u64()?;
            let sequence_failures = body.u64()?;
            return Ok(Some(Statistics {
                flows,
                bytes,
                packets,
                first_ms,
                last_ms,
                sequence_failures,
            }));
        }
    }
    Ok(None)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    let used = bytes.split_at(end.unwrap_or(bytes.len())).0;
    String::from_utf8_lossy(used).into_owned()
}
