//! What can be wrong with raw input.

/// A defect of the input, with the byte offset and the value that is wrong.
///
/// Offsets inside a compressed block count from the start of the block's uncompressed bytes; the caller adds which block.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The input ends inside a field.
    #[error("at byte {offset}: {needed} bytes needed, {remaining} left")]
    Truncated {
        /// Where the field starts.
        offset: u64,
        /// Bytes of the field.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// The file does not start with nfdump's magic number.
    #[error("not an nfcapd file: starts with 0x{found:04x}, not 0xa50c")]
    Magic {
        /// The first two bytes, little-endian.
        found: u16,
    },
    /// The file was written on a big-endian machine.
    #[error("nfcapd file of a big-endian machine (magic 0x0ca5) is not supported")]
    BigEndian,
    /// The layout version is neither 1 nor 2.
    #[error("nfcapd layout {version} is not supported (1 and 2 are)")]
    Layout {
        /// The version in the header.
        version: u16,
    },
    /// The file is encrypted.
    #[error("nfcapd file is encrypted (method {method})")]
    Encrypted {
        /// The encryption method in the header.
        method: u8,
    },
    /// The header names a compression that does not exist.
    #[error("unknown compression {method}")]
    Compression {
        /// The value in the header.
        method: u32,
    },
    /// A block claims more bytes than a block may have.
    #[error("block claims {size} bytes, more than the limit of {limit}")]
    BlockTooLong {
        /// Claimed size.
        size: u32,
        /// The limit.
        limit: usize,
    },
    /// A block ends before its claimed size.
    #[error("block claims {size} bytes, {remaining} remain in the file")]
    BlockCut {
        /// Claimed size.
        size: u32,
        /// Bytes left in the file.
        remaining: u64,
    },
    /// A block's bytes cannot be decompressed.
    #[error("block of {size} bytes cannot be decompressed ({method})")]
    Decompress {
        /// Compressed size.
        size: usize,
        /// Name of the method.
        method: &'static str,
    },
    /// A block is of a type that holds no records we know.
    #[error("unknown block type {block_type}")]
    BlockType {
        /// The type in the block header.
        block_type: u16,
    },
    /// A record's size is smaller than its header or larger than its block.
    #[error("record at byte {offset} of its block claims {size} bytes, {remaining} remain")]
    RecordSize {
        /// Where the record starts.
        offset: u64,
        /// Claimed size.
        size: u16,
        /// Bytes left in the block.
        remaining: usize,
    },
    /// A flow record has no addresses or counters.
    #[error("flow record at byte {offset} of its block has no {what}")]
    Incomplete {
        /// Where the record starts.
        offset: u64,
        /// The missing part.
        what: &'static str,
    },
    /// A file announces more blocks than it holds.
    #[error("file announces {announced} blocks and holds {found}")]
    BlocksMissing {
        /// Announced in the file header.
        announced: u32,
        /// Found.
        found: u64,
    },
    /// A block announces more records than it holds.
    #[error("block announces {announced} records and holds {found}")]
    RecordCount {
        /// Announced in the block header.
        announced: u32,
        /// Found.
        found: u32,
    },
}

impl Error {
    /// Returns a short stable name, used as the key of reject counts.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Magic { .. } => "not_nfcapd",
            Self::BigEndian => "big_endian",
            Self::Layout { .. } => "layout",
            Self::Encrypted { .. } => "encrypted",
            Self::Compression { .. } => "compression",
            Self::BlockTooLong { .. } => "block_too_long",
            Self::BlockCut { .. } => "block_cut",
            Self::Decompress { .. } => "decompress",
            Self::BlockType { .. } => "block_type",
            Self::RecordSize { .. } => "record_size",
            Self::Incomplete { .. } => "incomplete",
            Self::BlocksMissing { .. } => "blocks_missing",
            Self::RecordCount { .. } => "record_count",
        }
    }
}
