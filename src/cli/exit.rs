//! Exit codes: what a scheduler can act on.

use std::io;

use parquet::errors::ParquetError;

use crate::engine::source;
use crate::ml::lda::ParamsError;

/// Usage or configuration.
pub(super) const USAGE: u8 = 2;
/// Input is missing or not ready.
pub(super) const INPUT: u8 = 3;
/// No permission.
pub(super) const PERMISSION: u8 = 5;
/// Input cannot be decoded.
pub(super) const REJECTED: u8 = 7;
const FAILED: u8 = 1;

/// Shown under `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  usage
  3  input missing or not a file
  5  no permission
  7  input cannot be decoded";

/// Returns the exit code of an error by its cause.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<NotAFile>() {
        return INPUT;
    }
    if error.is::<Usage>() {
        return USAGE;
    }
    for cause in error.chain() {
        if let Some(source::Error::Format(_)) = cause.downcast_ref() {
            return REJECTED;
        }
        if cause.is::<ParquetError>() {
            return REJECTED;
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::NotFound => INPUT,
                io::ErrorKind::PermissionDenied => PERMISSION,
                _ => FAILED,
            };
        }
    }
    FAILED
}

/// True where the reader of stdout went away, as `head` does.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| {
        let direct = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let csv = cause
            .downcast_ref::<csv::Error>()
            .and_then(|error| match error.kind() {
                csv::ErrorKind::Io(error) => Some(error.kind()),
                _ => None,
            });
        direct.or(csv)
    });
    causes.any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// A path that is a directory or a device.
#[derive(Debug, thiserror::Error)]
#[error("{path}: not a regular file; name one nfcapd file")]
pub(super) struct NotAFile {
    /// The path as given.
    pub(super) path: String,
}

/// A value of an option that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Usage(#[from] ParamsError);
