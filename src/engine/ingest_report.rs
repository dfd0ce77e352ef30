//! What became of raw files: where their records went, and what was written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::engine::pieces::PieceReport;

/// Where the records of a file went: read = kept + outside + rejected.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Counts {
    /// Records of flows that the blocks announce.
    pub read: u64,
    /// In the table.
    pub kept: u64,
    /// Of another day: that day's run keeps them.
    pub outside: u64,
    /// Not decoded, by reason.
    pub rejected: BTreeMap<String, u64>,
}

impl Counts {
    /// Returns the rejected records of every reason.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Counts records that were read and cannot be decoded.
    pub(super) fn reject(&mut self, reason: &str, records: u64) {
        self.read += records;
        *self.rejected.entry(reason.to_owned()).or_default() += records;
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.kept += other.kept;
        self.outside += other.outside;
        for (reason, records) in &other.rejected {
            *self.rejected.entry(reason.clone()).or_default() += records;
        }
    }
}

/// A place that could not be decoded.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reject {
    /// The file.
    pub file: String,
    /// Where its block starts.
    pub offset: u64,
    /// Key of the counts.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Records that are lost with it.
    pub records: u64,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            offset,
            message,
            records,
            ..
        } = self;
        write!(
            f,
            "{file}, block at byte {offset}: {message} (records lost: {records})"
        )
    }
}

/// A written table file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Part {
    /// Path below the day's folder.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// What became of a split.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SplitReport {
    /// Number of the split.
    pub split: u32,
    /// Counts by file, in order.
    pub files: Vec<(String, Counts)>,
    /// Table files by hour.
    pub parts: Vec<Part>,
    /// The first rejects of each reason.
    pub rejects: Vec<Reject>,
    /// Bytes of files that are no nfcapd files or of an unknown kind.
    pub unreadable_bytes: u64,
    /// Records whose optional fields are lost with their extension map.
    pub unmapped: u64,
    /// Elements and records of kinds that nothing is made of.
    pub unknown: u64,
    /// What became of its piece, where it is one.
    pub piece: Option<PieceReport>,
}
