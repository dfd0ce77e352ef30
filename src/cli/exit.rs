//! Exit codes: what a scheduler can act on.

use std::error::Error;
use std::io;

use parquet::errors::ParquetError;

use crate::catalog::MetastoreError;
use crate::config;
use crate::config::ConfError;
use crate::detect::models::ModelError;
use crate::engine::cluster::ClusterError;
use crate::engine::ingest::IngestError;
use crate::engine::source;
use crate::job::DayError;
use crate::job::JobError;
use crate::job::RunError;
use crate::ml::lda::CorpusError;
use crate::ml::lda::ParamsError;
use crate::step::StepError;
use crate::store::LockError;
use crate::store::PublishError;
use crate::store::StoreError;
use crate::store::io_cause;
use crate::store::is_unavailable;
use crate::table::hive::InvalidDay;
use crate::table::period::InvalidPeriod;

/// Done, or nothing to do.
pub(super) const DONE: u8 = 0;
/// Usage or configuration.
pub(super) const USAGE: u8 = 2;
/// Input is missing or not ready.
pub(super) const INPUT: u8 = 3;
/// Locked by a live run.
pub(super) const LOCKED: u8 = 4;
/// No permission.
pub(super) const PERMISSION: u8 = 5;
/// The cluster does not answer.
const UNAVAILABLE: u8 = 6;
/// Input cannot be decoded.
pub(super) const REJECTED: u8 = 7;
/// A publication is half done.
const HALF_DONE: u8 = 8;
pub(super) const FAILED: u8 = 1;

/// Shown under `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done
  1  failed, or some days of a range failed
  2  usage or configuration
  3  input missing or not ready
  4  locked by a live run
  5  no permission
  6  the cluster does not answer, also after hadoop.patience
  7  records rejected above the limit, or input cannot be decoded
  8  a publication is half done; the next run, or klieg recover, finishes it
  124  stopped by --timeout
  130, 143  stopped by SIGINT, SIGTERM";

/// Returns the word for an exit code that schedulers decide by.
pub(super) fn status(code: u8) -> &'static str {
    match code {
        DONE => "ok",
        USAGE => "usage",
        INPUT => "missing",
        LOCKED => "locked",
        PERMISSION => "denied",
        UNAVAILABLE => "unavailable",
        REJECTED => "rejected",
        HALF_DONE => "half_done",
        _ => "failed",
    }
}

/// Returns the exit code of an error by its cause.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<NotAFile>() {
        return INPUT;
    }
    let is_usage = error.is::<Usage>() || error.is::<UsageText>() || error.is::<JobError>();
    if is_usage
        || error.is::<config::Error>()
        || error.is::<InvalidDay>()
        || error.is::<InvalidPeriod>()
    {
        return USAGE;
    }
    if error.is::<NoResult>() {
        return INPUT;
    }
    if let Some(RunError::Step(error)) = error.downcast_ref() {
        return step_code(error);
    }
    if let Some(RunError::Table { .. }) = error.downcast_ref() {
        return USAGE;
    }
    let of_run = match error.downcast_ref() {
        Some(RunError::Metastore(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    if let Some(error) = of_run {
        return metastore_code(error);
    }
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref() {
            return cluster_code(error);
        }
        if let Some(source::Error::Format(_)) = cause.downcast_ref() {
            return REJECTED;
        }
        if cause.is::<ParquetError>() {
            return REJECTED;
        }
        if let Some(error) = cause.downcast_ref::<LockError>() {
            return lock_code(error);
        }
        if let Some(error) = cause.downcast_ref::<PublishError>() {
            return publish_code(error);
        }
        if let Some(error) = cause.downcast_ref::<ConfError>() {
            return conf_code(error);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return read_code(error);
        }
    }
    FAILED
}

pub(super) fn metastore_code(error: &MetastoreError) -> u8 {
    match error {
        MetastoreError::Conf(error) => conf_code(error),
        MetastoreError::NoUri | MetastoreError::Uri(_) => USAGE,
        MetastoreError::Call { error, .. } => write_code(error),
    }
}

/// Returns the exit code of what workers, or their keys, have stopped.
pub(super) fn cluster_code(error: &ClusterError) -> u8 {
    match error {
        ClusterError::Name(_)
        | ClusterError::Open { .. }
        | ClusterError::Secret { .. }
        | ClusterError::Bind { .. }
        | ClusterError::Host
        | ClusterError::Memory { .. }
        | ClusterError::Keyless
        | ClusterError::Tls(_) => USAGE,
        ClusterError::Busy(error) => lock_code(error),
        ClusterError::Store(error) => write_code(&error.error),
        // A part of it is a file: the setting is wrong, not the data.
        ClusterError::WorkDir(error) if error.kind() == io::ErrorKind::NotADirectory => USAGE,
        ClusterError::WorkDir(error) => write_code(error),
        ClusterError::NoWorkers { .. }
        | ClusterError::Worker(_)
        | ClusterError::Tries {
            is_unavailable: true,
            ..
        } => UNAVAILABLE,
        ClusterError::Tries { .. } => FAILED,
    }
}

fn conf_code(error: &ConfError) -> u8 {
    match error {
        ConfError::Read { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
            PERMISSION
        }
        _ => USAGE,
    }
}

fn lock_code(error: &LockError) -> u8 {
    match error {
        LockError::Held { .. } | LockError::Lost { .. } => LOCKED,
        LockError::Io { error, .. } => write_code(error),
    }
}

fn publish_code(error: &PublishError) -> u8 {
    match error {
        PublishError::Store(store) => write_code(&store.error),
        PublishError::Lock(error) | PublishError::Overtaken(error) => lock_code(error),
        PublishError::HalfDone { .. } | PublishError::Version { .. } => HALF_DONE,
        PublishError::Layout { .. } => USAGE,
    }
}

/// Returns what to do about a warehouse that is not there or not for this user; empty for other errors.
pub(super) fn warehouse_advice(error: &anyhow::Error) -> &'static str {
    let store = error.downcast_ref::<StoreError>();
    let of_run = match error.downcast_ref() {
        Some(RunError::Store(store)) => Some(store),
        _ => None,
    };
    let kind = store.or(of_run).map(|store| store.error.kind());
    match kind {
        Some(io::ErrorKind::NotFound) => {
            "; is the warehouse right (-D warehouse=/data/spot, or --config)? Raw files go to <warehouse>/flow/landing"
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "; give this user the right to it, or set another warehouse"
        }
        _ => "",
    }
}

/// Returns the error with its causes, each unless the text before ends in it.
pub(super) fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// True where the reader of stdout went away, as `head` does. A server that hangs up has an error of its own around it.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_text = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let of_json = error.downcast_ref::<serde_json::Error>();
    let of_json = of_json.and_then(serde_json::Error::io_error_kind);
    let of_csv = error.downcast_ref::<csv::Error>();
    let of_csv = of_csv.and_then(|error| match error.kind() {
        csv::ErrorKind::Io(error) => Some(error.kind()),
        _ => None,
    });
    let kind = of_text.or(of_json).or(of_csv);
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// Returns the exit code of a day that failed.
pub(super) fn day_code(error: &DayError) -> u8 {
    match error {
        DayError::Lock(error) => lock_code(error),
        DayError::Publish(error) => publish_code(error),
        DayError::Store(store) => write_code(&store.error),
        DayError::Engine(error) => cause_code(error),
        DayError::Cluster(error) => cluster_code(error),
        DayError::Step { error, .. } => step_code(error),
    }
}

/// Returns what to do about a day that the file system stopped, behind the message; empty for errors that say it themselves.
pub(super) fn advice(error: &DayError) -> &'static str {
    match io_of(error).map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => {
            "; give this user the right to it, or set another warehouse"
        }
        Some(io::ErrorKind::ReadOnlyFilesystem) => "; mount it writable, or set another warehouse",
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            "; nothing was published: free space and run again"
        }
        Some(io::ErrorKind::NotFound) => "; make it, or set another warehouse",
        _ => "",
    }
}

fn io_of(error: &DayError) -> Option<&io::Error> {
    match error {
        DayError::Lock(LockError::Io { error, .. })
        | DayError::Publish(PublishError::HalfDone {
            error: StoreError { error, .. },
        }) => Some(error),
        DayError::Store(store) => Some(&store.error),
        DayError::Step { error, .. } => match error {
            StepError::Io { error, .. } => Some(error),
            StepError::Store(store)
            | StepError::Publish(PublishError::Store(store))
            | StepError::Publish(PublishError::HalfDone { error: store }) => Some(&store.error),
            StepError::Ingest(IngestError::Read { error, .. }) => Some(error),
            StepError::Plan(error) => io_cause(error),
            StepError::Parquet { error, .. }
            | StepError::Ingest(IngestError::Write { error, .. }) => io_cause(error),
            _ => None,
        },
        DayError::Lock(_) | DayError::Publish(_) | DayError::Engine(_) | DayError::Cluster(_) => {
            None
        }
    }
}

fn step_code(error: &StepError) -> u8 {
    match error {
        StepError::NoInput(_) | StepError::NotReady { .. } => INPUT,
        StepError::Foreign { .. } => USAGE,
        StepError::Ingest(IngestError::Changed { .. }) => INPUT,
        StepError::Ingest(IngestError::Read { error, .. }) | StepError::Io { error, .. } => {
            read_code(error)
        }
        StepError::Store(store) => write_code(&store.error),
        StepError::Publish(error) => publish_code(error),
        StepError::Cluster(error) => cluster_code(error),
        StepError::Plan(error) => cause_code(error),
        StepError::Rejected { .. } | StepError::Unreadable { .. } | StepError::Emptied { .. } => {
            REJECTED
        }
        StepError::Parquet { error, .. } | StepError::Ingest(IngestError::Write { error, .. }) => {
            cause_code(error)
        }
        StepError::Room(error)
        | StepError::Corpus(CorpusError::Room(error))
        | StepError::Model(
            ModelError::Room(error) | ModelError::Corpus(CorpusError::Room(error)),
        ) => write_code(&error.clone().into()),
        _ => FAILED,
    }
}

pub(super) fn read_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::WouldBlock => INPUT,
        _ => write_code(error),
    }
}

fn cause_code(error: &(dyn Error + 'static)) -> u8 {
    io_cause(error).map_or(FAILED, write_code)
}

fn write_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => PERMISSION,
        _ if is_unavailable(error) => UNAVAILABLE,
        _ => FAILED,
    }
}

/// A day whose result is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoResult(pub(super) String);

/// Options that cannot be used together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageText(pub(super) String);

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
