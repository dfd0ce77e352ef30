//! Reads nfcapd files block by block and decodes several blocks at once, in file order.
//!
//! ```text
//! read a wave of blocks ─► decompress (threads) ─► scan in order (one thread) ─► map (threads) ─► sink in order
//! ```
//! A wave is two blocks a thread, so at most `2 · threads · (size of a block + its uncompressed bytes)` are held. A block that
//! is damaged goes the same way with its error; what follows it is read as long as its size leads to a next block.

use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde::Serialize;

use crate::parallel;
use crate::wire;
use crate::wire::nfcapd;
use crate::wire::nfcapd::BlockHeader;
use crate::wire::nfcapd::Context;
use crate::wire::nfcapd::Header;
use crate::wire::nfcapd::Sayings;
use crate::wire::nfcapd::Statistics;

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not an nfcapd file that can be decoded.
    #[error(transparent)]
    Format(#[from] wire::Error),
}

/// Headers of blocks that are read to cut a file: those of 4 TiB, where its writer is nfdump.
const HEADERS_MAX: u32 = 1 << 22;

/// An open nfcapd file.
#[derive(Debug)]
pub struct NfcapdFile<R> {
    reader: R,
    header: Header,
    statistics: Option<Statistics>,
    position: u64,
    end: u64,
}

/// A block as it lies in the file; `bytes` are still compressed.
struct RawBlock {
    offset: u64,
    header: BlockHeader,
    bytes: Result<Vec<u8>, wire::Error>,
}

/// An uncompressed block with the state of the file up to and including it.
#[derive(Debug)]
pub struct Block {
    /// Where its header stands in the file.
    pub offset: u64,
    /// Its header.
    pub header: BlockHeader,
    /// Uncompressed bytes, or why there are none.
    pub bytes: Result<Vec<u8>, wire::Error>,
    /// Extension maps, exporters and samplers seen so far.
    pub context: Context,
}

/// What a file says about its own size.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Announced {
    /// Blocks; 0 in a file that was never closed.
    pub blocks: u32,
    /// Flow records; 0 where it does not say.
    pub flows: u64,
    /// Where its blocks end.
    pub end: u64,
}

impl Announced {
    /// Returns why and how many records are lost where a file announces more blocks than the `blocks` that were read with
    /// `records`: what its writer counted beyond them, at least 1, at most one a byte of the file.
    #[must_use]
    pub fn lost(&self, blocks: u64, records: u64) -> Option<(wire::Error, u64)> {
        if blocks >= u64::from(self.blocks) {
            return None;
        }
        let lost = self.flows.saturating_sub(records);
        let error = wire::Error::BlocksMissing {
            announced: self.blocks,
            found: blocks,
        };
        Some((error, lost.clamp(1, self.end.max(1))))
    }
}

impl<R: Read + Seek> NfcapdFile<R> {
    /// Reads the header of a file of `file_bytes`, and the statistics that its writer left.
    ///
    /// # Errors
    /// I/O, or a header that cannot be decoded. Damaged statistics are no error: they are only a hint.
    pub fn open(mut reader: R, file_bytes: u64) -> Result<Self, Error> {
        let mut prefix = Vec::new();
        let limit = nfcapd::LAYOUT1_PREFIX_BYTES as u64;
        reader.by_ref().take(limit).read_to_end(&mut prefix)?;
        let header = Header::decode(&prefix)?;
        let mut file = Self {
            reader,
            statistics: header.statistics,
            position: header.blocks_start,
            end: header.blocks_end(file_bytes),
            header,
        };
        if file.header.layout == 2 && file.header.appendix == file.end {
            file.statistics = file.read_appendix(file_bytes)?;
        }
        Ok(file)
    }

    /// Returns the decoded header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns what the writer counted, where it says so.
    pub fn statistics(&self) -> Option<Statistics> {
        self.statistics
    }

    /// Returns what the file says about its own size.
    pub fn announced(&self) -> Announced {
        Announced {
            blocks: self.header.blocks,
            flows: self.statistics.map_or(0, |statistics| statistics.flows),
            end: self.end,
        }
    }

    /// Returns where pieces start that have at least `bytes` each, but for the last: at starts of blocks, the first of them too.
    /// Only the headers of blocks are read, and no more than 2^22: a file of many tiny blocks is made to cost time.
    ///
    /// # Errors
    /// I/O. Damage ends the last piece where reading would end.
    pub fn piece_starts(&mut self, bytes: u64) -> io::Result<Vec<u64>> {
        let mut starts = vec![self.position];
        let mut last = self.position;
        for _ in 0..HEADERS_MAX {
            let offset = self.position;
            let rest = self.end.saturating_sub(offset);
            if offset - last >= bytes && rest >= bytes {
                starts.push(offset);
                last = offset;
            }
            // What is left would be no piece of its own.
            if self.end.saturating_sub(last) < bytes.saturating_mul(2) {
                return Ok(starts);
            }
            let mut head = [0; BlockHeader::BYTES];
            self.reader.seek(SeekFrom::Start(offset))?;
            if !read_exact(&mut self.reader, &mut head)? {
                return Ok(starts);
            }
            let size = u64::from(BlockHeader::decode(&head).size);
            if size > rest.saturating_sub(head.len() as u64) {
                return Ok(starts);
            }
            self.position = offset + head.len() as u64 + size;
        }
        Ok(starts)
    }

    /// Reads the next block and returns what it says; nothing where it is damaged.
    ///
    /// # Errors
    /// I/O.
    pub fn next_says(&mut self) -> io::Result<Sayings> {
        let mut context = Context::default();
        if let Some(raw) = self.next_raw()?
            && let Ok(bytes) = uncompress(&self.header, &raw)
        {
            context.scan(&bytes, raw.header.records);
        }
        Ok(context.said())
    }

    /// Goes to the blocks from `from` to before `to`, both starts of blocks; `None` for the end of the file.
    pub fn go_to(&mut self, from: u64, to: Option<u64>) {
        self.position = from;
        self.end = to.map_or(self.end, |to| to.min(self.end));
    }

    fn read_appendix(&mut self, file_bytes: u64) -> Result<Option<Statistics>, Error> {
        let data_end = std::mem::replace(&mut self.end, file_bytes);
        let data_start = std::mem::replace(&mut self.position, data_end);
        let mut found = None;
        for _ in 0..self.header.appendix_blocks {
            let Some(raw) = self.next_raw()? else { break };
            let statistics =
                uncompress(&self.header, &raw).and_then(|b| nfcapd::decode_appendix(&b));
            if let Ok(Some(statistics)) = statistics {
                found = Some(statistics);
                break;
            }
        }
        self.position = data_start;
        self.end = data_end;
        Ok(found)
    }

    /// Decompresses and maps every block on `threads` threads and gives the results to `sink` in file order; `context` is that
    /// before the first of them.
    ///
    /// # Errors
    /// I/O. Damage of the input is not an error here: it is in [`Block::bytes`], or met by `map`.
    pub fn for_each_block<T: Send>(
        &mut self,
        threads: NonZeroUsize,
        mut context: Context,
        map: impl Fn(&Block) -> T + Sync,
        mut sink: impl FnMut(T) -> ControlFlow<()>,
    ) -> io::Result<Context> {
        loop {
            let wave = self.read_wave(threads.get().saturating_mul(2))?;
            if wave.is_empty() {
                return Ok(context);
            }
            let header = &self.header;
            let bytes = parallel::map(threads, &wave, |raw| uncompress(header, raw));
            let mut blocks = Vec::with_capacity(wave.len());
            for (raw, bytes) in wave.into_iter().zip(bytes) {
                if let Ok(bytes) = &bytes {
                    context.scan(bytes, raw.header.records);
                }
                blocks.push(Block {
                    offset: raw.offset,
                    header: raw.header,
                    bytes,
                    context: context.clone(),
                });
            }
            let mapped = parallel::map(threads, &blocks, &map);
            if mapped.into_iter().try_for_each(&mut sink).is_break() {
                return Ok(context);
            }
        }
    }

    fn read_wave(&mut self, blocks_max: usize) -> io::Result<Vec<RawBlock>> {
        let mut wave = Vec::with_capacity(blocks_max);
        while wave.len() < blocks_max {
            let Some(raw) = self.next_raw()? else { break };
            wave.push(raw);
        }
        Ok(wave)
    }

    /// Reads the next block; `None` at the end of the data blocks.
    fn next_raw(&mut self) -> io::Result<Option<RawBlock>> {
        let offset = self.position;
        let remaining = self.end.saturating_sub(offset);
        if remaining == 0 {
            return Ok(None);
        }
        self.reader.seek(SeekFrom::Start(offset))?;
        let mut head = [0; BlockHeader::BYTES];
        if remaining < head.len() as u64 || !read_exact(&mut self.reader, &mut head)? {
            self.position = self.end;
            return Ok(Some(cut_header(offset, remaining)));
        }
        let header = BlockHeader::decode(&head);
        let size = u64::from(header.size);
        let body_remaining = remaining.saturating_sub(head.len() as u64);
        self.position = offset
            .saturating_add(size)
            .saturating_add(head.len() as u64);
        let bytes = if size > body_remaining {
            self.position = self.end;
            Err(wire::Error::BlockCut {
                size: header.size,
                remaining: body_remaining,
            })
        } else {
            header.check(self.header.layout)
        };
        let bytes = match bytes {
            Ok(()) => self.read_body(&header)?,
            Err(error) => Err(error),
        };
        Ok(Some(RawBlock {
            offset,
            header,
            bytes,
        }))
    }

    /// The size was checked against the file and against the limit.
    fn read_body(&mut self, header: &BlockHeader) -> io::Result<Result<Vec<u8>, wire::Error>> {
        let mut bytes = vec![0; header.size as usize];
        if read_exact(&mut self.reader, &mut bytes)? {
            return Ok(Ok(bytes));
        }
        self.position = self.end;
        Ok(Err(wire::Error::BlockCut {
            size: header.size,
            remaining: 0,
        }))
    }
}

/// Fewer bytes than a block header are left.
fn cut_header(offset: u64, remaining: u64) -> RawBlock {
    let error = wire::Error::Truncated {
        offset,
        needed: BlockHeader::BYTES,
        remaining: usize::try_from(remaining).unwrap_or(usize::MAX),
    };
    RawBlock {
        offset,
        header: BlockHeader::decode(&[0; BlockHeader::BYTES]),
        bytes: Err(error),
    }
}

/// Returns false where the file is shorter than it was when it was opened.
fn read_exact(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn uncompress(file: &Header, raw: &RawBlock) -> Result<Vec<u8>, wire::Error> {
    let bytes = raw.bytes.as_ref().map_err(|error| *error)?;
    let mut out = Vec::new();
    nfcapd::decompress(file.compression, &raw.header, file.layout, bytes, &mut out)?;
    Ok(out)
}
