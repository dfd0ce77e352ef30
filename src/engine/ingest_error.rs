//! Why a split fails.

use std::io;

use serde::Deserialize;
use serde::Serialize;

use crate::engine::ingest::RawFile;

/// Why a split failed.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A raw file.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What the file system says.
        error: std::io::Error,
    },
    /// A raw file that is not the one that was planned.
    #[error(
        "{path}: still being written ({planned} bytes when the run was planned, {now} now); run again when it is complete"
    )]
    Changed {
        /// The file.
        path: String,
        /// Length when planned.
        planned: u64,
        /// Length after reading.
        now: u64,
    },
    /// A table file.
    #[error("{path}: {error}")]
    Write {
        /// The file or folder.
        path: String,
        /// What went wrong.
        error: parquet::errors::ParquetError,
    },
    /// Nobody waits for it any more.
    #[error("{path}: cancelled")]
    Cancelled {
        /// The file that was being decoded.
        path: String,
    },
}

/// Refuses a file that has another length than when it was planned.
pub(super) fn check_length(file: &RawFile, now: u64) -> Result<(), IngestError> {
    match now == file.bytes {
        true => Ok(()),
        false => Err(IngestError::Changed {
            path: file.path.clone(),
            planned: file.bytes,
            now,
        }),
    }
}

/// A failure of the input, which every try on every machine would meet: what a task tells instead of failing.
#[derive(Debug, Deserialize, Serialize)]
pub enum Failed {
    /// See [`IngestError::Changed`].
    Changed {
        /// The file.
        path: String,
        /// Length when planned.
        planned: u64,
        /// Length after reading.
        now: u64,
    },
    /// See [`IngestError::Read`].
    Read {
        /// The file.
        path: String,
        /// What kind of error, one of a few names.
        kind: String,
        /// What the file system says.
        text: String,
    },
}

/// Kinds of errors that are of the input, not of the machine that reads it.
const KINDS: [(&str, io::ErrorKind); 4] = [
    ("not found", io::ErrorKind::NotFound),
    ("denied", io::ErrorKind::PermissionDenied),
    ("growing", io::ErrorKind::WouldBlock),
    ("folder", io::ErrorKind::IsADirectory),
];

/// True for an error that every machine would meet.
pub(super) fn is_of_input(error: &io::Error) -> bool {
    KINDS.iter().any(|(_, kind)| *kind == error.kind())
}

impl TryFrom<IngestError> for Failed {
    type Error = IngestError;

    fn try_from(error: IngestError) -> Result<Self, IngestError> {
        match error {
            IngestError::Changed { path, planned, now } => Ok(Self::Changed { path, planned, now }),
            IngestError::Read { path, error } => {
                match KINDS.iter().find(|(_, kind)| *kind == error.kind()) {
                    Some((kind, _)) => Ok(Self::Read {
                        path,
                        kind: (*kind).to_owned(),
                        text: error.to_string(),
                    }),
                    None => Err(IngestError::Read { path, error }),
                }
            }
            IngestError::Write { .. } | IngestError::Cancelled { .. } => Err(error),
        }
    }
}

impl From<Failed> for IngestError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Changed { path, planned, now } => Self::Changed { path, planned, now },
            Failed::Read { path, kind, text } => {
                let kind = KINDS.iter().find(|(name, _)| *name == kind);
                let kind = kind.map_or(io::ErrorKind::Other, |(_, kind)| *kind);
                Self::Read {
                    path,
                    error: io::Error::new(kind, text),
                }
            }
        }
    }
}
