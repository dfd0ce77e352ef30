//! Block header and decompression.

use std::io::Read as _;

use crate::wire::Error;
use crate::wire::cursor::Cursor;
use crate::wire::nfcapd::Compression;

/// The most that a block may hold, compressed or not. nfdump's own buffer is 5 MiB.
pub const BLOCK_BYTES_MAX: usize = 16 << 20;
const FLAG_UNCOMPRESSED: u16 = 1;

/// A decoded block header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockHeader {
    /// Records, as announced.
    pub records: u32,
    /// Bytes that follow the header.
    pub size: u32,
    /// 2 in layout 1, 3 in layout 2, 4 for arrays of one record type.
    pub block_type: u16,
    /// Bit 0: not compressed although the file is (layout 2).
    pub flags: u16,
}

impl BlockHeader {
    /// Bytes of a block header.
    pub const BYTES: usize = 12;

    /// Decodes a block header.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Self {
            records: u32::from_le_bytes([a, b, c, d]),
            size: u32::from_le_bytes([e, f, g, h]),
            block_type: u16::from_le_bytes([i, j]),
            flags: u16::from_le_bytes([k, l]),
        }
    }

    /// Returns how many records a damaged block is counted as: what it announces, but never more than could fit in it.
    #[must_use]
    pub fn records_lost(&self) -> u64 {
        const RECORD_BYTES_MIN: u64 = 32;
        const EXPANSION_MAX: u64 = 64;
        let most = (u64::from(self.size)
            .saturating_mul(EXPANSION_MAX)
            .min(BLOCK_BYTES_MAX as u64))
            / RECORD_BYTES_MIN;
        u64::from(self.records).min(most.max(1)).max(1)
    }

    /// Checks size and type.
    ///
    /// # Errors
    /// A size over [`BLOCK_BYTES_MAX`] or a type that holds no flow records.
    pub fn check(&self, layout: u16) -> Result<(), Error> {
        if self.size as usize > BLOCK_BYTES_MAX {
            return Err(Error::BlockTooLong {
                size: self.size,
                limit: BLOCK_BYTES_MAX,
            });
        }
        match (layout, self.block_type) {
            (1, 2) | (2, 3) => Ok(()),
            (_, block_type) => Err(Error::BlockType { block_type }),
        }
    }
}

/// The largest window that a ZSTD frame may ask for: a block.
const WINDOW_LOG_MAX: u32 = 24;

/// Decompresses the bytes of a block into `out`, which is cleared first and never grows past [`BLOCK_BYTES_MAX`].
///
/// # Errors
/// Damaged bytes, or more than [`BLOCK_BYTES_MAX`] bytes of output.
pub fn decompress(
    compression: Compression,
    header: &BlockHeader,
    layout: u16,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    out.clear();
    let stored = layout == 2 && header.flags & FLAG_UNCOMPRESSED != 0;
    let method = if stored {
        Compression::None
    } else {
        compression
    };
    let error = Error::Decompress {
        size: bytes.len(),
        method: method.name(),
    };
    match method {
        Compression::None => {
            out.extend_from_slice(bytes);
            Ok(())
        }
        Compression::Lz4 => into_buffer(out, error, |buffer| {
            lz4_flex::block::decompress_into(bytes, buffer).ok()
        }),
        Compression::Lzo => into_buffer(out, error, |buffer| {
            lzokay::decompress::decompress(bytes, buffer).ok()
        }),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| error)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| error)?;
            read_all(decoder.single_frame(), out, error)
        }
        Compression::Bz2 => read_all(bzip2::bufread::BzDecoder::new(bytes), out, error),
    }
}

/// Runs a decoder that wants its whole output buffer at once: first with the size that nfdump flushes at, then with the size of
/// its buffer, then with the limit. Clearing a larger buffer than needed would cost as much as decoding.
fn into_buffer(
    out: &mut Vec<u8>,
    error: Error,
    decode: impl Fn(&mut [u8]) -> Option<usize>,
) -> Result<(), Error> {
    for size in [(1 << 20) + (1 << 14), 5 << 20, BLOCK_BYTES_MAX] {
        out.resize(size, 0);
        if let Some(used) = decode(out) {
            out.truncate(used);
            return Ok(());
        }
    }
    out.clear();
    Err(error)
}

fn read_all(reader: impl std::io::Read, out: &mut Vec<u8>, error: Error) -> Result<(), Error> {
    let limit = BLOCK_BYTES_MAX as u64;
    let read = reader.take(limit.saturating_add(1)).read_to_end(out);
    match read {
        Ok(size) if size <= BLOCK_BYTES_MAX => Ok(()),
        _ => Err(error),
    }
}

/// Walks the record headers of an uncompressed block.
pub(super) struct RecordHeaders<'a> {
    cursor: Cursor<'a>,
    left: u32,
}

/// One record: where it starts in its block, its type, and the bytes behind its header.
#[derive(Clone, Copy)]
pub(super) struct RawRecord<'a> {
    pub(super) offset: u64,
    pub(super) record_type: u16,
    pub(super) body: Cursor<'a>,
}

impl<'a> RecordHeaders<'a> {
    pub(super) fn new(block: &'a [u8], announced: u32) -> Self {
        Self {
            cursor: Cursor::new(block, 0),
            left: announced,
        }
    }

    /// Returns the next record; `None` after the announced number of records, or at the end of the block.
    pub(super) fn next(&mut self) -> Option<Result<RawRecord<'a>, Error>> {
        if self.left == 0 || self.cursor.remaining() == 0 {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }

    #[inline]
    fn read(&mut self) -> Result<RawRecord<'a>, Error> {
        let offset = self.cursor.offset();
        let remaining = self.cursor.remaining();
        let record_type = self.cursor.u16()?;
        let size = self.cursor.u16()?;
        let body = usize::from(size)
            .checked_sub(4)
            .and_then(|body_size| self.cursor.split(body_size).ok());
        match body {
            Some(body) => Ok(RawRecord {
                offset,
                record_type,
                body,
            }),
            None => Err(Error::RecordSize {
                offset,
                size,
                remaining,
            }),
        }
    }
}
