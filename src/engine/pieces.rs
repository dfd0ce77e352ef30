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

use crate::engine::ingest::IngestError;
use crate::engine::ingest::RawFile;
use crate::engine::ingest::Reject;
use crate::engine::ingest::Split;
use crate::engine::ingest::SplitReport;
use crate::engine::ingest_error::is_of_input;
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

/// Groups consecutive files to splits of about `split_bytes`, alike in size, and cuts large ones at blocks.
///
/// # Errors
/// The headers of a large file cannot be read now, and maybe can later: the splits, and with them the table files, would differ.
pub fn cut(store: &Store, files: &[RawFile], split_bytes: u64) -> Result<Vec<Split>, IngestError> {
    let starts = parallel::map(AT_ONCE, files, |file| match is_large(file, split_bytes) {
        // A file that cannot be read is one split, which says why.
        true => match starts(store, file, split_bytes) {
            Err(source::Error::Io(error)) if !is_of_input(&error) => Err(IngestError::Read {
                path: file.path.clone(),
                error,
            }),
            starts => Ok(starts.unwrap_or_default()),
        },
        false => Ok(Vec::new()),
    });
    let starts: Result<Vec<_>, _> = starts.into_iter().collect();
    let entries: Vec<_> = files.iter().zip(starts?).collect();
    let runs = entries.chunk_by(|left, right| left.1.len() < 2 && right.1.len() < 2);
    let splits = runs.flat_map(|run| match run {
        [(file, starts)] if starts.len() > 1 => pieces(file, starts),
        _ => grouped(run.iter().map(|entry| entry.0), split_bytes),
    });
    let numbered = (0..).zip(splits);
    Ok(numbered
        .map(|(id, (files, piece))| Split { id, files, piece })
        .collect())
}

/// The files of a split, or the piece of a file.
type Part = (Vec<RawFile>, Option<Piece>);

fn pieces(file: &RawFile, starts: &[u64]) -> Vec<Part> {
    let ends = starts.iter().skip(1).copied().map(Some).chain([None]);
    let pieces = starts.iter().zip(ends).enumerate();
    let pieces = pieces.map(|(number, (&from, to))| Piece {
        from,
        to,
        before: (number == 0).then(Sayings::default),
    });
    pieces
        .map(|piece| (vec![file.clone()], Some(piece)))
        .collect()
}

/// As many groups as filling one after the other gives, but alike in size: a last one that is small leaves a worker idle.
fn grouped<'a>(files: impl Iterator<Item = &'a RawFile> + Clone, split_bytes: u64) -> Vec<Part> {
    let groups = filled(files.clone().map(|file| file.bytes), split_bytes);
    let total: u64 = files.clone().map(|file| file.bytes).sum();
    let mut before = 0;
    let mut parts: Vec<(u128, Part)> = Vec::new();
    for file in files {
        let middle = u128::from(before) + u128::from(file.bytes / 2);
        let group = middle * u128::from(groups) / u128::from(total.max(1));
        // Empty files at the end belong to the last one.
        let group = group.min(u128::from(groups.saturating_sub(1)));
        before += file.bytes;
        match parts.last_mut() {
            Some((last, part)) if *last == group => part.0.push(file.clone()),
            _ => parts.push((group, (vec![file.clone()], None))),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// How many splits hold files when one is filled after the other.
fn filled(files: impl Iterator<Item = u64>, split_bytes: u64) -> u64 {
    let (mut splits, mut bytes) = (0, None);
    for file in files {
        bytes = match bytes {
            Some(bytes) if bytes + file <= split_bytes => Some(bytes + file),
            _ => {
                splits += 1;
                Some(file)
            }
        };
    }
    splits
}

/// Returns how many splits files give, at most, without a look into them.
#[must_use]
pub fn count(files: &[RawFile], split_bytes: u64) -> u64 {
    let runs =
        files.chunk_by(|left, right| is_large(left, split_bytes) == is_large(right, split_bytes));
    let splits = runs.map(|run| match is_large(&run[0], split_bytes) {
        true => run.iter().map(|file| file.bytes / split_bytes.max(1)).sum(),
        false => filled(run.iter().map(|file| file.bytes), split_bytes),
    });
    splits.sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(files: &[u64], split_bytes: u64) -> Vec<u64> {
        let file = |&bytes: &u64| RawFile {
            path: String::new(),
            bytes,
            modified_ns: 0,
        };
        let files: Vec<RawFile> = files.iter().map(file).collect();
        let parts = grouped(files.iter(), split_bytes);
        let kept: usize = parts.iter().map(|(files, _)| files.len()).sum();
        assert_eq!(kept, files.len());
        assert!(parts.len() as u64 <= count(&files, split_bytes));
        let bytes = |(files, _): &Part| files.iter().map(|file| file.bytes).sum();
        parts.iter().map(bytes).collect()
    }

    #[test]
    fn splits_of_small_files_are_alike_in_size() {
        // Filling them one after the other gives 250 and 50.
        assert_eq!(sizes(&[50; 6], 256), [150, 150]);
        assert_eq!(sizes(&[50; 5], 256), [250]);
        assert_eq!(sizes(&[10, 10, 200, 10, 10, 10, 200], 256), [220, 230]);
        assert_eq!(sizes(&[0, 0, 0], 256), [0]);
        assert_eq!(sizes(&[300, 1], 256), [300, 1]);
        assert_eq!(sizes(&[50, 50, 0, 0], 256), [100]);
        assert_eq!(sizes(&[], 256), [0; 0]);
    }
}
