//! Runs the steps of a job on days.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use datafusion::error::DataFusionError;
use serde::Serialize;

use crate::catalog::MetastoreError;
use crate::config::Config;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::Lazy;
use crate::job::History;
use crate::job::Job;
use crate::job::Reprocess;
use crate::job::announce::Announcer;
use crate::job::announce::check_tables;
use crate::job::day::DayRun;
use crate::job::is_selected;
use crate::parallel;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::StepError;
use crate::step::inputs::SharedLandings;
use crate::store::LockError;
use crate::store::PublishError;
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
    /// Take what another tool has written as the table.
    pub adopt: bool,
    /// How long another run of the same day is waited for.
    pub lock_wait: Duration,
    /// No day is begun after so many have failed.
    pub failures_max: usize,
    /// Tells why a day or hour failed, when it has.
    pub tell_failure: fn(&dyn Events, Period, &DayError),
    /// Workers; `None` for plans in this process.
    pub cluster: Option<Arc<Lazy>>,
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
    /// Workers.
    #[error(transparent)]
    Cluster(Arc<ClusterError>),
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
    let landings = SharedLandings::default();
    let run = |period: &Period| {
        if failures.load(Ordering::Relaxed) >= options.failures_max {
            return DayResult::NotBegun;
        }
        let done = match is_selected(job, *period, options.reprocess, (store, &history)) {
            Ok(false) => return DayResult::NotSelected,
            Ok(true) => {
                runtime.block_on(DayRun::new(&share, *period, (options, &landings), events).run())
            }
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
    if let Some(cluster) = &options.cluster {
        cluster.stop();
    }
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
