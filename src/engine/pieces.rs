//! Cuts raw files into splits: small files together, large ones into pieces, so that few large files spread too.
//!
//! ```text
//! headers of blocks ─► starts of pieces ─► each decoded with what the first block of its file says
//!                                          └─► what it met ─► what the blocks before each piece really said ─► again where they differ
//! ```
//! A block may name what only an earlier one explains (extension maps, samplers). Collectors write these at the start of a
//! file; where one comes later, the pieces are decoded again, now with all that was said before them.

use std::io;
use std::io::Read;
use std::io::Seek;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::engine::ingest::RawFile;
use crate::engine::ingest::Reject;
use crate::engine::ingest::Split;
use crate::engine::ingest::SplitReport;
use crate::engine::source;
use crate::engine::source::Announced;
use crate::engine::source::NfcapdFile;
use crate::parallel;
use crate::store::AT_ONCE;
use crate::store::Store;
use crate::wire::nfcapd::Sayings;

/// Consecutive blocks of a file that is decoded by several splits.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Piece {
    /// Where its first block starts.
    pub from: u64,
    /// Where the first block after it starts; `None` for the last piece.
    pub to: Option<u64>,
    /// What the blocks before it say; where that is not known, it is taken to be what the first block says.
    pub before: Option<Sayings>,
}

/// What became of a piece.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PieceReport {
    /// Its blocks.
    pub blocks: u64,
    /// What it was decoded with.
    pub before: Sayings,
    /// What its own blocks say.
    pub said: Sayings,
    /// What the file says.
    pub announced: Announced,
}

/// Files of at least so many times the size of a split are cut.
const CUT_FROM: u64 = 2;

/// Groups consecutive files to splits of about `split_bytes`, and cuts large ones at blocks.
#[must_use]
pub fn cut(store: &Store, files: &[RawFile], split_bytes: u64) -> Vec<Split> {
    let starts = parallel::map(AT_ONCE, files, |file| match is_large(file, split_bytes) {
        // A file that cannot be read is one split, which says why.
        true => starts(store, file, split_bytes).unwrap_or_default(),
        false => Vec::new(),
    });
    let mut splits: Vec<Split> = Vec::new();
    let (mut bytes, mut is_open) = (0, false);
    for (file, starts) in files.iter().zip(starts) {
        let id = u32::try_from(splits.len()).unwrap_or(u32::MAX);
        if starts.len() > 1 {
            let ends = starts.iter().skip(1).copied().map(Some).chain([None]);
            let first = starts.first().copied();
            splits.extend(
                (id..)
                    .zip(starts.iter().zip(ends))
                    .map(|(id, (&from, to))| Split {
                        id,
                        files: vec![file.clone()],
                        piece: Some(Piece {
                            from,
                            to,
                            before: (Some(from) == first).then(Sayings::default),
                        }),
                    }),
            );
            is_open = false;
            continue;
        }
        match splits.last_mut() {
            Some(split) if is_open && bytes + file.bytes <= split_bytes => {
                split.files.push(file.clone());
                bytes += file.bytes;
            }
            _ => {
                splits.push(Split {
                    id,
                    files: vec![file.clone()],
                    piece: None,
                });
                (bytes, is_open) = (file.bytes, true);
            }
        }
    }
    splits
}

/// Returns how many splits files give, at most, without a look into them.
#[must_use]
pub fn count(files: &[RawFile], split_bytes: u64) -> u64 {
    let (mut splits, mut bytes, mut is_open) = (0, 0, false);
    for file in files {
        if is_large(file, split_bytes) {
            splits += file.bytes / split_bytes.max(1);
            is_open = false;
        } else if is_open && bytes + file.bytes <= split_bytes {
            bytes += file.bytes;
        } else {
            splits += 1;
            (bytes, is_open) = (file.bytes, true);
        }
    }
    splits
}

fn is_large(file: &RawFile, split_bytes: u64) -> bool {
    file.bytes >= split_bytes.saturating_mul(CUT_FROM)
}

fn starts(store: &Store, file: &RawFile, split_bytes: u64) -> Result<Vec<u64>, source::Error> {
    let (open, bytes) = store.files().open(Path::new(&file.path))?;
    if bytes != file.bytes {
        return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
    }
    Ok(NfcapdFile::open(open, bytes)?.piece_starts(split_bytes)?)
}

/// Goes to a piece, and returns what is said before it.
pub(super) fn enter<R: Read + Seek>(
    nfcapd: &mut NfcapdFile<R>,
    piece: Option<&Piece>,
) -> io::Result<Sayings> {
    let Some(piece) = piece else {
        return Ok(Sayings::default());
    };
    let before = match &piece.before {
        Some(before) => before.clone(),
        None => nfcapd.next_says()?,
    };
    nfcapd.go_to(piece.from, piece.to);
    Ok(before)
}

/// Returns the splits with what the blocks before their pieces say, where a piece was decoded with something else.
pub(super) fn corrected(splits: &[Split], reports: &[SplitReport]) -> Option<Vec<Split>> {
    let mut corrected = splits.to_vec();
    let (mut said, mut is_wrong) = (Sayings::default(), false);
    for (split, report) in corrected.iter_mut().zip(reports) {
        let (Some(piece), Some(found)) = (&mut split.piece, &report.piece) else {
            continue;
        };
        if piece.before == Some(Sayings::default()) {
            said = Sayings::default();
        }
        is_wrong |= said != found.before;
        piece.before = Some(said.clone());
        said.extend(&found.said);
    }
    is_wrong.then_some(corrected)
}

/// Counts what is lost of files whose pieces together have fewer blocks than the file announces.
pub(super) fn count_lost(splits: &[Split], reports: &mut [SplitReport]) {
    let (mut blocks, mut records) = (0, 0);
    for (split, report) in splits.iter().zip(reports) {
        let (Some(piece), Some(found), Some(file)) =
            (&split.piece, &report.piece, split.files.first())
        else {
            (blocks, records) = (0, 0);
            continue;
        };
        blocks += found.blocks;
        records += report.files.first().map_or(0, |(_, counts)| counts.read);
        if piece.to.is_some() {
            continue;
        }
        if let Some((error, lost)) = found.announced.lost(blocks, records) {
            if let Some((_, counts)) = report.files.first_mut() {
                counts.reject(error.reason(), lost);
            }
            report.rejects.push(Reject {
                file: file.path.clone(),
                offset: file.bytes,
                reason: error.reason().to_owned(),
                message: error.to_string(),
                records: lost,
            });
        }
        (blocks, records) = (0, 0);
    }
}
