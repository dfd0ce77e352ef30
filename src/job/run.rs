//! Runs the steps of a job on days.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use datafusion::error::DataFusionError;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::catalog::MetastoreError;
use crate::config::Config;
use crate::engine::session::Engine;
use crate::job::History;
use crate::job::Job;
use crate::job::Record;
use crate::job::Reprocess;
use crate::job::Status;
use crate::job::StepKind;
use crate::job::announce::Announcer;
use crate::job::announce::check_tables;
use crate::job::is_selected;
use crate::job::repair::recover_key;
use crate::parallel;
use crate::step;
use crate::step::Context;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::StepError;
use crate::store::DayLock;
use crate::store::LockError;
use crate::store::PublishError;
use crate::store::Staging;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::clear_trash;
use crate::table::hive::Layout;
use crate::table::period::Period;

/// What a run of a day is told beside the job.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The warehouse.
    pub store: Store,
    /// Name of the run: `20160708T010203Z-1a2b3c4d`.
    pub run_id: String,
    /// Which days are done.
    pub reprocess: Reprocess,
    /// Days at a time; they share threads and memory.
    pub parallel: NonZeroUsize,
    /// How long another run of the same day is waited for.
    pub lock_wait: Duration,
    /// No day is begun after so many have failed.
    pub failures_max: usize,
    /// Tells why a day or hour failed, when it has.
    pub tell_failure: fn(&dyn Events, Period, &DayError),
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
    /// Finishing what a killed run has begun to publish.
    #[error(transparent)]
    Publish(#[from] PublishError),
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
    /// The warehouse has no folder of the pipeline, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The metastore.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// A table of the catalog.
    #[error("{name} {what}")]
    Table {
        /// Database and table.
        name: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
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

impl DayResult {
    fn has_published(&self) -> bool {
        match self {
            Self::Done(outcome) => outcome.steps.iter().any(|step| step.published),
            _ => false,
        }
    }
}

/// Runs days and hours in order, `parallel` at a time; results are in their order. The failure of one does not stop others.
///
/// # Errors
/// The folder of the pipeline is not there, or the history cannot be read; nothing was written.
pub fn run_days(
    job: &Job,
    periods: &[Period],
    options: &RunOptions,
    events: &dyn Events,
    runtime: &tokio::runtime::Handle,
) -> Result<Vec<DayResult>, RunError> {
    let store = &options.store;
    let layout = Layout::new(store.root(), job.pipeline.name());
    store.check_folder(&layout.pipeline_dir())?;
    check_tables(store, &job.config)?;
    let history = match options.reprocess {
        Reprocess::Failed => History::read(store)?,
        Reprocess::Missing | Reprocess::Changed | Reprocess::All => History::default(),
    };
    let days = by_day(periods);
    let at_once = options.parallel.get().min(days.len()).max(1);
    let mut share = job.clone();
    let threads = job.config.threads.get() / at_once;
    share.config.threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    share.config.memory_bytes = job.config.memory_bytes / at_once as u64;
    let failures = AtomicUsize::new(0);
    let run = |period: &Period| {
        if failures.load(Ordering::Relaxed) >= options.failures_max {
            return DayResult::NotBegun;
        }
        let done = match is_selected(job, *period, options.reprocess, (store, &history)) {
            Ok(false) => return DayResult::NotSelected,
            Ok(true) => runtime.block_on(run_day(&share, *period, options, events)),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(outcome) => DayResult::Done(outcome),
            Err(error) => {
                failures.fetch_add(1, Ordering::Relaxed);
                (options.tell_failure)(events, *period, &error);
                DayResult::Failed(error)
            }
        }
    };
    // Hours of a day share its lock.
    let run_all = |periods: &Vec<Period>| periods.iter().map(run).collect::<Vec<_>>();
    let results = parallel::map(options.parallel, &days, run_all);
    let results: Vec<_> = results.into_iter().flatten().collect();
    if results.iter().any(DayResult::has_published) {
        // What is left over is removed by the next run.
        drop(clear_trash(store, job.config.keep, (options.now)()));
    }
    Ok(results)
}

/// Periods that follow each other in one day, together.
fn by_day(periods: &[Period]) -> Vec<Vec<Period>> {
    let days = periods.chunk_by(|one, next| one.day == next.day);
    days.map(<[Period]>::to_vec).collect()
}

/// Opens the warehouse of a configuration; publications in it are told to its catalog.
///
/// # Errors
/// Hadoop's or Hive's configuration cannot be used.
pub fn open_store(config: &Config) -> Result<Store, MetastoreError> {
    let store = Store::open(config)?;
    Ok(match Announcer::of(config)? {
        Some(announcer) => store.telling(Arc::new(announcer)),
        None => store,
    })
}

/// What a run says of itself to whoever comes while it holds a lock.
pub(super) fn owner(run: &str) -> String {
    format!("run {run}, process {}", std::process::id())
}

/// Locks the day, runs the steps, writes the run report.
///
/// # Errors
/// The first step that fails; what earlier steps published stays.
async fn run_day(
    job: &Job,
    period: Period,
    options: &RunOptions,
    events: &dyn Events,
) -> Result<DayOutcome, DayError> {
    let started = Instant::now();
    let clock = (options.now)();
    let store = &options.store;
    let layout = Layout::new(store.root(), job.pipeline.name());
    let key = job.partition(period).key();
    let lock = wait_for_lock(options, &key, period, events)?;
    for run in recover_key(options, &key, &lock)? {
        events.line(&format!(
            "{period}: finished what run {run} had begun to publish"
        ));
    }
    let staging = Staging::create(store, &key, &options.run_id)?;
    let engine = Engine::try_new(
        job.config.threads,
        job.config.memory_bytes,
        &staging.folder("spill")?,
        store,
    )?;
    let mut steps = Vec::with_capacity(job.steps.len());
    for kind in &job.steps {
        let context = Context {
            config: &job.config,
            store,
            lock: &lock,
            layout: &layout,
            period,
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
            Ok(outcome) => {
                steps.push(outcome);
                // A run that is killed later has published this all the same.
                if steps.len() < job.steps.len() {
                    write_published(job, period, options, (clock, started), &steps)?;
                }
            }
            Err(error) => {
                let step = kind.name();
                let failure = json!({ "step": step, "error": error.to_string(), "steps": steps });
                let ended = (clock, started.elapsed().as_secs_f64());
                let record = record(job, period, options, ended, (Status::Failed, failure));
                // The failure itself is what to tell, also where its report cannot be written.
                drop(record.write(store));
                return Err(DayError::Step { step, error });
            }
        }
    }
    write_published(job, period, options, (clock, started), &steps)
}

/// How often a lock of another run is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(2);

/// Takes the lock of a day, waiting for another run where that is asked for.
fn wait_for_lock(
    options: &RunOptions,
    key: &str,
    period: Period,
    events: &dyn Events,
) -> Result<DayLock, LockError> {
    let start = Instant::now();
    let mut is_told = false;
    loop {
        match DayLock::take(&options.store, key, &owner(&options.run_id)) {
            Err(LockError::Held { path, owner }) if start.elapsed() < options.lock_wait => {
                if !is_told {
                    events.line(&format!("{period}: waiting for {path} ({owner})"));
                    is_told = true;
                }
                let left = options.lock_wait.saturating_sub(start.elapsed());
                std::thread::sleep(LOCK_PAUSE.min(left));
            }
            taken => return taken,
        }
    }
}

/// Writes the record of a day, where a step has published.
fn write_published(
    job: &Job,
    period: Period,
    options: &RunOptions,
    (clock, started): (SystemTime, Instant),
    steps: &[Outcome],
) -> Result<DayOutcome, DayError> {
    let outcome = DayOutcome {
        day: period.to_string(),
        steps: steps.to_vec(),
        seconds: started.elapsed().as_secs_f64(),
    };
    if steps.iter().any(|step| step.published) {
        let ended = (clock, outcome.seconds);
        let end = (Status::Published, json!(outcome));
        record(job, period, options, ended, end).write(&options.store)?;
    }
    Ok(outcome)
}

fn record(
    job: &Job,
    period: Period,
    options: &RunOptions,
    (clock, seconds): (SystemTime, f64),
    (status, outcome): (Status, Value),
) -> Record {
    let started = chrono::DateTime::<chrono::Utc>::from(clock);
    Record {
        run: options.run_id.clone(),
        job: job.name.clone(),
        pipeline: job.pipeline.name().to_owned(),
        day: period.to_string(),
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
