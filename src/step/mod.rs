//! Steps: input tables to output tables. A step neither knows YAML nor a terminal.

pub mod day_table;
mod decode;
pub mod ingest;
pub mod inputs;
mod lookup;
mod outputs;
pub mod suspicious;
mod training;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::SystemTime;

use datafusion::error::DataFusionError;
use serde::Serialize;

use crate::column::RoomError;
use crate::config::Config;
use crate::config::EventTime;
use crate::detect::models::ModelError;
use crate::engine::Engine;
use crate::engine::Progress;
use crate::engine::Stage;
use crate::engine::cluster::ClusterError;
use crate::engine::ingest::IngestError;
use crate::ml::lda::CorpusError;
use crate::step::inputs::SharedLandings;
use crate::store::DayLock;
use crate::store::PublishError;
use crate::store::Published;
use crate::store::Staging;
use crate::store::Store;
use crate::store::StoreError;
use crate::table::hive::Layout;
use crate::table::period::Period;

/// How bad it is what somebody is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// As it must be.
    Info,
    /// Done, and perhaps not what was meant; kept in the report.
    Warning,
    /// Not done.
    Failure,
}

/// Who is told what happens.
pub trait Events: Send + Sync {
    /// Something that is worth a line.
    fn tell(&self, severity: Severity, text: &str);

    /// Something that went as it must.
    fn line(&self, text: &str) {
        self.tell(Severity::Info, text);
    }

    /// How far a long piece of work is: `done` of `total`, and a note that may be empty.
    fn progress(&self, label: &str, done: u64, total: u64, note: &str);
}

/// What a step works with.
pub struct Context<'a> {
    /// Settings.
    pub config: &'a Config,
    /// The warehouse.
    pub store: &'a Store,
    /// The lock of the day.
    pub lock: &'a DayLock,
    /// Where tables lie.
    pub layout: &'a Layout,
    /// What is published as one.
    pub period: Period,
    /// What runs plans.
    pub engine: &'a dyn Engine,
    /// Where outputs are made.
    pub staging: &'a Staging,
    /// Raw files.
    pub landings: &'a SharedLandings,
    /// Who is told.
    pub events: &'a dyn Events,
    /// Do it even where nothing changed.
    pub redo: bool,
    /// Take what another tool has written as the table.
    pub adopt: bool,
    /// Takes down what workers did.
    pub work: &'a Work,
    /// The clock.
    pub now: fn() -> SystemTime,
}

/// What the counter of a plan counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unit {
    Bytes,
    Rows,
}

/// How often progress is told.
const TICK: Duration = Duration::from_millis(500);

/// Folder of the staging folder for what workers read.
const SHARED: &str = "shared";

impl Context<'_> {
    /// Returns the place of a file for workers, in a folder that ends with the run.
    fn share(&self, name: &str) -> Result<PathBuf, StepError> {
        let folder = self.staging.staged(SHARED);
        let made = self.store.files().make_folder(&folder);
        made.map_err(self.store.at(&folder))?;
        Ok(folder.join(name))
    }

    /// Does `work` and tells how far the engine is; keeps what it did.
    async fn watched<T>(
        &self,
        label: &str,
        (total, unit): (u64, Unit),
        (progress, work): (&Progress, impl Future<Output = T>),
    ) -> T {
        let now = || match unit {
            Unit::Bytes => progress.get().0,
            Unit::Rows => progress.get().1,
        };
        let counted = match unit {
            Unit::Bytes => format!("{label}, bytes"),
            Unit::Rows => format!("{label}, rows"),
        };
        let mut tick = tokio::time::interval(TICK);
        let mut work = std::pin::pin!(work);
        let mut told = 0;
        loop {
            let done = tokio::select! {
                done = &mut work => Some(done),
                _ = tick.tick() => None,
            };
            self.tell_reruns(label, (progress, &mut told));
            if let Some(done) = done {
                return done;
            }
            match progress.stages() {
                stages if stages.is_empty() => self.events.progress(&counted, now(), total, ""),
                stages => stages.iter().for_each(|stage| self.show(label, stage)),
            }
        }
    }

    /// The same for work of many plans that holds its thread.
    fn watched_beside<T>(&self, label: &str, progress: &Progress, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let (goes_on, is_over) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let mut told = 0;
                while is_over.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    self.tell_reruns(label, (progress, &mut told));
                    let stages = progress.stages();
                    stages.iter().for_each(|stage| self.show(label, stage));
                }
                self.tell_reruns(label, (progress, &mut told));
            });
            let done = work();
            drop(goes_on);
            done
        })
    }

    /// Tells of reruns that are new.
    fn tell_reruns(&self, label: &str, (progress, told): (&Progress, &mut usize)) {
        for why in progress.reruns().iter().skip(*told) {
            let text = format!("{label}: what a plan did is thrown away, and begun again: {why}");
            self.events.tell(Severity::Warning, &text);
            *told += 1;
        }
    }

    /// A bar of a stage that runs.
    fn show(&self, label: &str, stage: &Stage) {
        let Stage {
            stage: number,
            work,
            done,
            running,
            tasks,
            workers,
            rows,
            ..
        } = stage;
        if *tasks > 0 && (*running > 0 || *done > 0) {
            let label = format!("{label}, stage {number} ({work}), tasks");
            let note = format!("{running} running on {workers} workers, {rows} rows");
            self.events
                .progress(&label, *done as u64, *tasks as u64, &note);
        }
    }
}

/// What the plans of a step did on workers, for its report, also where it failed; nothing where there were none.
#[derive(Debug, Default)]
pub struct Work(Mutex<Vec<serde_json::Value>>);

impl Work {
    fn note(&self, plan: &str, progress: &Progress) {
        let (stages, reruns) = (progress.stages(), progress.reruns());
        if !stages.is_empty() || !reruns.is_empty() {
            let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            work.push(serde_json::json!({ "plan": plan, "stages": stages, "reruns": reruns }));
        }
    }

    /// Adds it to a report, and begins anew.
    pub fn take_into(&self, report: &mut serde_json::Value) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !work.is_empty() {
            report["work"] = std::mem::take(&mut *work).into();
        }
    }
}

/// Returns ` (reason: 3, other: 1)`, or nothing where there is none.
fn by_reason<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let texts: Vec<_> = counts
        .iter()
        .map(|(reason, count)| format!("{reason}: {count}"))
        .collect();
    if texts.is_empty() {
        return String::new();
    }
    format!(" ({})", texts.join(", "))
}

/// Returns `; readers found nothing for 2.5 ms`, or nothing where they found something at all times.
fn absence(published: &Published) -> String {
    match published.absent {
        Duration::ZERO => String::new(),
        absent => {
            let ms = absent.as_secs_f64() * 1e3;
            format!("; readers found nothing for {ms:.1} ms")
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Name of the step.
    pub step: &'static str,
    /// False where the published result was up to date.
    pub published: bool,
    /// Seconds.
    pub seconds: f64,
    /// Length of the files of the result.
    pub bytes: u64,
    /// Rows of the main table.
    pub rows: u64,
    /// Folders that hold the result.
    pub outputs: Vec<String>,
    /// Everything that was counted.
    pub report: serde_json::Value,
}

/// Says that there was nothing to do.
pub fn tell_up_to_date(events: &dyn Events, period: Period, outcome: &Outcome) {
    let Outcome { step, rows, .. } = outcome;
    events.line(&format!(
        "{step}: {period} is up to date ({rows} rows), skipped"
    ));
}

impl Outcome {
    /// Notes what is known of a publication only after it, and so is not in what is published.
    fn note(&mut self, published: &Published, work: &Work) {
        self.report["absent_ms"] = (published.absent.as_secs_f64() * 1e3).into();
        work.take_into(&mut self.report);
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// There is nothing to read.
    #[error("{0}")]
    NoInput(String),
    /// A file is still being written.
    #[error("{path}: still being written ({what}); run again when it is complete")]
    NotReady {
        /// The file.
        path: String,
        /// What changes.
        what: String,
    },
    /// Too many rejected records.
    #[error(
        "{rejected} of {read} records rejected, more than ingest.rejects_max = {most}; nothing was published; the first:{shown}"
    )]
    Rejected {
        /// Rejected records.
        rejected: u64,
        /// Read records.
        read: u64,
        /// The limit.
        most: f64,
        /// The first rejects, each on a line.
        shown: String,
    },
    /// Too many bytes in files that nobody can read.
    #[error(
        "files that cannot be read have {unreadable} of {bytes} bytes, more than ingest.rejects_max = {most}; nothing was published; the first:{shown}"
    )]
    Unreadable {
        /// Bytes of those files.
        unreadable: u64,
        /// Bytes of all files.
        bytes: u64,
        /// The limit.
        most: f64,
        /// The first rejects, each on a line.
        shown: String,
    },
    /// A folder that another tool has written.
    #[error(
        "{path}: holds {files} files that klieg has not published, the first {first}; it stays as it is: --adopt takes them as the table, --reprocess all replaces them (they are kept for `keep`)"
    )]
    Foreign {
        /// The folder.
        path: String,
        /// Number of its files.
        files: usize,
        /// The first.
        first: String,
    },
    /// All records are of other days, and the published day has rows.
    #[error(
        "none of {outside} records is of {period} by its time of {event_time} (ingest.event_time), and {rows} rows are published; nothing was changed; --reprocess all empties it"
    )]
    Emptied {
        /// The day or hour.
        period: Period,
        /// Records of other times.
        outside: u64,
        /// Which time decides.
        event_time: EventTime,
        /// Published rows.
        rows: u64,
    },
    /// What was written is not what was counted.
    #[error("{path}: holds {found} rows, {wanted} were written; nothing was published")]
    Verify {
        /// The file.
        path: String,
        /// Rows in its footer.
        found: i64,
        /// Rows that were counted.
        wanted: u64,
    },
    /// A file or folder.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// What the file system says.
        #[source]
        error: io::Error,
    },
    /// Something of the warehouse.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A plan.
    #[error(transparent)]
    Plan(#[from] DataFusionError),
    /// Workers.
    #[error(transparent)]
    Cluster(ClusterError),
    /// Rows that a plan has lost or doubled.
    #[error("{what}: {found} rows were seen of {wanted}; nothing was published")]
    Rows {
        /// The plan.
        what: &'static str,
        /// Rows that it counted.
        found: u64,
        /// Rows of the table, or records of the raw files.
        wanted: u64,
    },
    /// A split.
    #[error(transparent)]
    Ingest(IngestError),
    /// The documents.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// Something has no room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The models.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A table file.
    #[error("{path}: {error}")]
    Parquet {
        /// Which.
        path: String,
        /// What went wrong.
        error: parquet::errors::ParquetError,
    },
}

impl StepError {
    /// Finds our own error in what a plan failed with.
    fn of_plan(error: DataFusionError) -> Self {
        let DataFusionError::External(inner) = error else {
            return Self::Plan(error);
        };
        let inner = match inner.downcast::<IngestError>() {
            Ok(error) => return Self::Ingest(*error),
            Err(inner) => inner,
        };
        let inner = match inner.downcast::<RoomError>() {
            Ok(error) => return Self::Room(*error),
            Err(inner) => inner,
        };
        match inner.downcast::<ClusterError>() {
            Ok(error) => Self::Cluster(*error),
            Err(inner) => Self::Plan(DataFusionError::External(inner)),
        }
    }
}
