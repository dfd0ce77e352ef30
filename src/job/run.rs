//! Runs the steps of a job on one day.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use datafusion::error::DataFusionError;
use serde::Serialize;
use serde_json::json;

use crate::engine::session::Engine;
use crate::job::Job;
use crate::job::StepKind;
use crate::step;
use crate::step::Context;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::StepError;
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
    /// Do what is up to date too.
    pub redo: bool,
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
    #[error("{path}: {error}")]
    Report {
        /// The file.
        path: String,
        /// What the file system says.
        error: io::Error,
    },
    /// A step.
    #[error("{step}: {error}")]
    Step {
        /// Its name.
        step: &'static str,
        /// Why.
        error: StepError,
    },
}

/// Locks the day, runs the steps, writes the run report.
///
/// # Errors
/// The first step that fails; what earlier steps published stays.
pub async fn run_day(
    job: &Job,
    day: Day,
    options: &RunOptions,
    events: &dyn Events,
) -> Result<DayOutcome, DayError> {
    let started = std::time::Instant::now();
    let layout = Layout::new(&job.config.warehouse, job.pipeline.name());
    let work_area = job.config.warehouse.join(WORK_AREA);
    let key = format!("{}-{}", job.pipeline.name(), day.compact());
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
            redo: options.redo,
            now: options.now,
        };
        let outcome = match kind {
            StepKind::Ingest => step::ingest::run(&context).await,
            StepKind::Suspicious => step::suspicious::run(&context).await,
        };
        match outcome {
            Ok(outcome) => steps.push(outcome),
            Err(error) => {
                let failure =
                    json!({ "step": kind.name(), "error": error.to_string(), "done": steps });
                // The failure itself is what to tell, also where its report cannot be written.
                drop(write_report(
                    &work_area,
                    &options.run_id,
                    job,
                    (day, &failure),
                ));
                let step = kind.name();
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
        write_report(&work_area, &options.run_id, job, (day, &json!(outcome)))?;
    }
    Ok(outcome)
}

/// Writes `<work area>/history/<run>/<day>.json`.
fn write_report(
    work_area: &Path,
    run_id: &str,
    job: &Job,
    (day, outcome): (Day, &serde_json::Value),
) -> Result<(), DayError> {
    let folder = work_area.join("history").join(run_id);
    let path = folder.join(format!("{}-{day}.json", job.pipeline.name()));
    let fail = |error| DayError::Report {
        path: path.display().to_string(),
        error,
    };
    let report = json!({
        "run": run_id,
        "job": job.name,
        "version": env!("CARGO_PKG_VERSION"),
        "configuration": job.config.texts,
        "outcome": outcome,
    });
    std::fs::create_dir_all(&folder).map_err(fail)?;
    let text = serde_json::to_string_pretty(&report).map_err(|error| fail(error.into()))?;
    std::fs::write(&path, text).map_err(fail)
}
