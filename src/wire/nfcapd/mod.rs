//! nfcapd files, layout 1 (nfdump 1.6) and layout 2 (nfdump 1.7): nfdump's `nffile.h`, `nffileV2.h` and `nfxV3.h`.
//!
//! ```text
//! layout 1   header 140 | statistics 136 | block …            extension maps say what a flow record holds
//! layout 2   header  40 | block … | appendix block …          elements of a flow record name themselves
//! block      header  12 | records, compressed as the file says
//! record     type u16, size u16, body
//! ```
//! A caller reads [`Header`], then for each block [`BlockHeader`] and its bytes, hands the bytes to [`decompress`], shows
//! the result to [`Context::scan`] **in file order** (it collects extension maps, exporters and samplers, which later blocks
//! refer to) and may then decode flow records of several blocks at once with [`records`] and a clone of the context.
//! Blocks of nfdump 1.5 (type 1) are not decoded; they count as rejects.

mod block;
mod context;
mod encode;
mod extension;
mod header;
mod record;

pub use block::BLOCK_BYTES_MAX;
pub use block::BlockHeader;
pub use block::decompress;
pub use context::Context;
pub use context::Exporter;
pub use context::Sayings;
pub use encode::Encoder;
pub use encode::encode_record;
pub use header::Compression;
pub use header::Header;
pub use header::LAYOUT1_PREFIX_BYTES;
pub use header::Statistics;
pub use header::decode_appendix;
pub use record::Flow;
pub use record::Records;
pub use record::records;
