//! Runs the steps of a job on days.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use datafusion::error::DataFusionError;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::engine::session::Engine;
use crate::job::History;
use crate::job::HistoryError;
use crate::job::Job;
use crate::job::Record;
use crate::job::Reprocess;
use crate::job::Status;
use crate::job::StepKind;
use crate::job::is_selected;
use crate::parallel;
use crate::step;
use crate::step::Context;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::StepError;
use crate::store;
use crate::store::DayLock;
use crate::store::LockError;
use crate::store::Staging;
use crate::store::StoreError;
use crate::table::hive::Day;
use crate::table::hive::Layout;

/// Our folder below the root of the warehouse.
pub const WORK_AREA: &str = ".klieg";

/// What a run of a day is told beside the job.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Name of the run: `20160708T010203Z-1a2b3c4d`.
    pub run_id: String,
    /// Which days are done.
    pub reprocess: Reprocess,
    /// Days at a time; they share threads and memory.
    pub parallel: NonZeroUsize,
    /// No day is begun after so many have failed.
    pub failures_max: usize,
    /// Tells why a day failed, when it has.
    pub tell_failure: fn(&dyn Events, Day, &DayError),
    /// The clock.
    pub now: fn() -> SystemTime,
}

/// What happened to a day.
#[derive(Clone, Debug, Serialize)]
pub struct DayOutcome {
    /// The day.
    pub day: String,
    /// Its steps.
    pub steps: Vec<Outcome>,
    /// Seconds.
    pub seconds: f64,
}

/// Why a day failed.
#[derive(Debug, thiserror::Error)]
pub enum DayError {
    /// Another run has the day.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Staging.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] DataFusionError),
    /// The run report.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A step.
    #[error("{step}: {error}")]
    Step {
        /// Its name.
        step: &'static str,
        /// Why.
        error: StepError,
    },
}

/// Why no day was begun, or none planned.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The warehouse has no folder of the pipeline.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The landing folder.
    #[error(transparent)]
    Landing(#[from] StepError),
    /// A lock.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// How a day of a range ended.
#[derive(Debug)]
pub enum DayResult {
    /// Its steps ran, or were up to date.
    Done(DayOutcome),
    /// Why not.
    Failed(DayError),
    /// Not selected.
    NotSelected,
    /// Too many days before it had failed.
    NotBegun,
}

/// Runs the days in order, `parallel` at a time; results are in the order of the days. The failure of one does not stop others.
///
/// # Errors
/// The folder of the pipeline is not there, or the history cannot be read; nothing was written.
pub fn run_days(
    job: &Job,
    days: &[Day],
    options: &RunOptions,
    events: &dyn Events,
    runtime: &tokio::runtime::Handle,
) -> Result<Vec<DayResult>, RunError> {
    let layout = Layout::new(&job.config.warehouse, job.pipeline.name());
    store::check_folder(&layout.pipeline_dir())?;
    let history = match options.reprocess {
        Reprocess::Failed => History::read(&job.config.warehouse.join(WORK_AREA))?,
        Reprocess::Missing | Reprocess::Changed | Reprocess::All => History::default(),
    };
    let at_once = options.parallel.get().min(days.len()).max(1);
    let mut share = job.clone();
    let threads = job.config.threads.get() / at_once;
    share.config.threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    share.config.memory_bytes = job.config.memory_bytes / at_once as u64;
    let failures = AtomicUsize::new(0);
    let run = |day: &Day| {
        if failures.load(Ordering::Relaxed) >= options.failures_max {
            return DayResult::NotBegun;
        }
        let done = match is_selected(job, *day, options.reprocess, &history) {
            Ok(false) => return DayResult::NotSelected,
            Ok(true) => runtime.block_on(run_day(&share, *day, options, events)),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(outcome) => DayResult::Done(outcome),
            Err(error) => {
                failures.fetch_add(1, Ordering::Relaxed);
                (options.tell_failure)(events, *day, &error);
                DayResult::Failed(error)
            }
        }
    };
    Ok(parallel::map(options.parallel, days, run))
}

/// Name of the lock of a day.
pub(super) fn lock_key(job: &Job, day: Day) -> String {
    format!("{}-{}", job.pipeline.name(), day.compact())
}

/// Locks the day, runs the steps, writes the run report.
///
/// # Errors
/// The first step that fails; what earlier steps published stays.
async fn run_day(
    job: &Job,
    day: Day,
    options: &RunOptions,
    events: &dyn Events,
) -> Result<DayOutcome, DayError> {
    let started = std::time::Instant::now();
    let clock = (options.now)();
    let layout = Layout::new(&job.config.warehouse, job.pipeline.name());
    let work_area = job.config.warehouse.join(WORK_AREA);
    let key = lock_key(job, day);
    let owner = format!("run {}, process {}", options.run_id, std::process::id());
    let _lock = DayLock::take(&work_area, &key, &owner)?;
    let staging = Staging::create(&work_area, &key, &options.run_id)?;
    let engine = Engine::try_new(
        job.config.threads,
        job.config.memory_bytes,
        &staging.folder("spill")?,
    )?;
    let mut steps = Vec::with_capacity(job.steps.len());
    for kind in &job.steps {
        let context = Context {
            config: &job.config,
            layout: &layout,
            day,
            engine: &engine,
            staging: &staging,
            events,
            redo: options.reprocess == Reprocess::All,
            now: options.now,
        };
        let outcome = match kind {
            StepKind::Ingest => step::ingest::run(&context).await,
            StepKind::Suspicious => step::suspicious::run(&context).await,
        };
        match outcome {
            Ok(outcome) => steps.push(outcome),
            Err(error) => {
                let step = kind.name();
                let failure = json!({ "step": step, "error": error.to_string(), "steps": steps });
                let ended = (clock, started.elapsed().as_secs_f64());
                let record = record(job, day, options, ended, (Status::Failed, failure));
                // The failure itself is what to tell, also where its report cannot be written.
                drop(record.write(&work_area));
                return Err(DayError::Step { step, error });
            }
        }
    }
    let outcome = DayOutcome {
        day: day.to_string(),
        steps,
        seconds: started.elapsed().as_secs_f64(),
    };
    if outcome.steps.iter().any(|step| step.published) {
        let ended = (clock, outcome.seconds);
        let end = (Status::Published, json!(outcome));
        record(job, day, options, ended, end).write(&work_area)?;
    }
    Ok(outcome)
}

fn record(
    job: &Job,
    day: Day,
    options: &RunOptions,
    (clock, seconds): (SystemTime, f64),
    (status, outcome): (Status, Value),
) -> Record {
    let started = chrono::DateTime::<chrono::Utc>::from(clock);
    Record {
        run: options.run_id.clone(),
        job: job.name.clone(),
        pipeline: job.pipeline.name().to_owned(),
        day: day.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        status,
        started: started.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        seconds,
        peak_memory_bytes: peak_memory_bytes(),
        input_bytes: input_bytes(&outcome),
        configuration: job.config.texts.clone(),
        outcome,
    }
}

/// Length of the raw files that the steps read.
fn input_bytes(outcome: &Value) -> u64 {
    let steps = outcome["steps"].as_array().into_iter().flatten();
    let published = steps.filter(|step| step["published"].as_bool() == Some(true));
    let inputs = published.filter_map(|step| step["report"]["inputs"].as_array());
    let bytes = inputs.flatten().filter_map(|input| input["bytes"].as_u64());
    bytes.sum()
}

/// The most memory that this process had, where Linux tells it (`VmHWM`).
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
