//! What a run of a day would do, and why; needs read rights only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::engine::ingest::RawFile;
use crate::engine::pieces;
use crate::job::History;
use crate::job::Job;
use crate::job::RunError;
use crate::job::Status;
use crate::job::StepKind;
use crate::parallel;
use crate::step;
use crate::step::StepError;
use crate::step::inputs::Inputs;
use crate::step::inputs::Landings;
use crate::store;
use crate::store::AT_ONCE;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::landing::Listing;
use crate::table::hive::Layout;
use crate::table::period::Period;

/// Which days of a range a run does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reprocess {
    /// Those that lack a folder that the job publishes.
    Missing,
    /// Those whose last run failed.
    Failed,
    /// Those that are not up to date.
    Changed,
    /// All, also what is up to date.
    All,
}

/// What a run does with a day.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Publishes it.
    Run,
    /// Publishes it in the place of another.
    Replace,
    /// Nothing.
    Skip,
    /// Nothing, since raw files are gone.
    Keep,
    /// Fails.
    Fail,
}

impl Action {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Replace => "replace",
            Self::Skip => "skip",
            Self::Keep => "keep",
            Self::Fail => "fail",
        }
    }
}

/// The plan of a day.
#[derive(Clone, Debug, Serialize)]
pub struct DayPlan {
    /// The day or hour.
    pub day: String,
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// How the last run of the day ended, and when it started; `None` where none did anything.
    pub last_run: Option<(Status, String)>,
    /// What a live run that has the day's lock says about itself.
    pub locked_by: Option<String>,
    /// Raw files.
    pub input_files: Vec<String>,
    /// Their length.
    pub input_bytes: u64,
    /// Parts that the raw files are cut in.
    pub splits: u64,
    /// Folders that are written.
    pub writes: Vec<String>,
    /// Seconds by the speed of the newest run that published; `None` where there is none, or nothing to do.
    pub expected_seconds: Option<f64>,
    /// Its peak memory.
    pub expected_memory_bytes: Option<u64>,
}

/// Returns whether a run that is to reprocess `which` takes a day up at all; the steps of a run skip what is up to date.
///
/// # Errors
/// What is published cannot be looked at.
pub fn is_selected(
    job: &Job,
    period: Period,
    which: Reprocess,
    (store, history): (&Store, &History),
) -> Result<bool, StoreError> {
    match which {
        Reprocess::Changed | Reprocess::All => Ok(true),
        Reprocess::Failed => Ok(history.has_failed(job.pipeline.name(), period)),
        Reprocess::Missing => is_missing(store, job, period),
    }
}

/// True where a folder that the job publishes is not there.
fn is_missing(store: &Store, job: &Job, period: Period) -> Result<bool, StoreError> {
    let layout = Layout::new(store.root(), job.pipeline.name());
    if job.steps.contains(&StepKind::Ingest)
        && step::ingest::published(store, &layout, period)?.is_none()
    {
        return Ok(true);
    }
    let results = job.steps.iter().copied();
    let results: Vec<_> = results.filter(|step| *step != StepKind::Ingest).collect();
    let places = Places::read(store, &layout.key(period.day))?;
    for (_, target) in targets(&results, &layout, period) {
        if Manifest::read(store, &places.of(&target))?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What plans are made of beside the job.
struct Known {
    store: Store,
    history: History,
    landed: Landings,
    /// Raw files that are not ready, and why.
    growing: BTreeMap<String, &'static str>,
    /// Key and owner of each lock that a live run holds.
    locks: Vec<(String, String)>,
}

/// Plans days as they would be done `now`; the landing folder is listed once.
///
/// # Errors
/// Something cannot be looked at, or the warehouse has no folder of the pipeline.
pub fn plan_days(
    job: &Job,
    store: &Store,
    periods: &[Period],
    (which, now): (Reprocess, SystemTime),
) -> Result<Vec<DayPlan>, RunError> {
    let layout = Layout::new(store.root(), job.pipeline.name());
    store.check_folder(&layout.pipeline_dir())?;
    let landed = match job.steps.contains(&StepKind::Ingest) {
        true => step::inputs::landed(&job.config, store, &layout)?,
        false => Landings::of(Listing::default(), &job.config),
    };
    let known = Known {
        store: store.clone(),
        history: History::read(store)?,
        growing: landed.growing(&job.config, store, now),
        landed,
        locks: store::held_locks(store)?,
    };
    let plan = |period: &Period| plan_day(job, *period, which, &known);
    parallel::map(AT_ONCE, periods, plan).into_iter().collect()
}

fn plan_day(
    job: &Job,
    period: Period,
    which: Reprocess,
    known: &Known,
) -> Result<DayPlan, RunError> {
    let store = &known.store;
    let layout = Layout::new(store.root(), job.pipeline.name());
    let last = known.history.last(job.pipeline.name(), period);
    let key = job.partition(period).key();
    let locked = known.locks.iter().find(|(held, _)| *held == key);
    let mut plan = DayPlan {
        last_run: last.map(|record| (record.status, record.started.clone())),
        locked_by: locked.map(|(_, owner)| owner.clone()),
        writes: targets(&job.steps, &layout, period)
            .iter()
            .map(|(_, path)| store.url(path))
            .collect(),
        ..DayPlan::of(period)
    };
    if !is_selected(job, period, which, (store, &known.history))? {
        (plan.action, plan.reason) = (Action::Skip, which.why_not().to_owned());
        return Ok(plan);
    }
    let all = which == Reprocess::All;
    let results = || step::suspicious::up_to_date(&job.config, store, &layout, period.day);
    if !job.steps.contains(&StepKind::Ingest) {
        (plan.action, plan.reason) = match results() {
            Err(StepError::NoInput(reason)) => (Action::Fail, reason),
            current => results_action(current?.is_some(), all),
        };
        return Ok(plan);
    }
    let inputs = match step::inputs::inputs_of((&job.config, store), &layout, &known.landed, period)
    {
        Err(StepError::NoInput(reason)) => {
            plan.reason = reason;
            return Ok(plan);
        }
        inputs => inputs?,
    };
    plan.input_bytes = inputs.bytes();
    plan.splits = pieces::count(&inputs.files, job.config.ingest.split_bytes);
    let published = step::ingest::published(store, &layout, period)?;
    (plan.action, plan.reason) = match published {
        None => first_action(store, &layout, (period, all))?,
        Some(manifest) if all => (
            Action::Replace,
            format!("all are reprocessed; {} rows are published", manifest.rows),
        ),
        Some(manifest) => {
            let analyses =
                job.steps.contains(&StepKind::Suspicious) && !matches!(results(), Ok(Some(_)));
            action(store, &manifest, &inputs, analyses)?
        }
    };
    if let Some(unfinished) = first_and_more(&inputs.unfinished) {
        plan.reason += "; still being written, not read: ";
        plan.reason += &unfinished;
    }
    plan.say_what_grows(&inputs, &known.growing);
    plan.input_files = inputs.files.into_iter().map(|file| file.path).collect();
    if matches!(plan.action, Action::Run | Action::Replace) {
        plan.expect(&known.history);
    }
    Ok(plan)
}

fn first_and_more(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [only] => Some(only.clone()),
        [first, others @ ..] => Some(format!("{first} and {} more", others.len())),
    }
}

impl Reprocess {
    fn why_not(self) -> &'static str {
        match self {
            Self::Missing => "all of it is published",
            Self::Failed => "its last run did not fail",
            Self::Changed | Self::All => "",
        }
    }
}

impl DayPlan {
    /// Nothing is known of it yet.
    fn of(period: Period) -> Self {
        Self {
            day: period.to_string(),
            action: Action::Fail,
            reason: String::new(),
            last_run: None,
            locked_by: None,
            input_files: Vec::new(),
            input_bytes: 0,
            splits: 0,
            writes: Vec::new(),
            expected_seconds: None,
            expected_memory_bytes: None,
        }
    }

    /// A run waits for raw files that grow, or ends with exit code 3.
    fn say_what_grows(&mut self, inputs: &Inputs, growing: &BTreeMap<String, &'static str>) {
        let why = |file: &RawFile| Some(format!("{} ({})", file.path, growing.get(&file.path)?));
        let grows: Vec<_> = inputs.files.iter().filter_map(why).collect();
        if let Some(grows) = first_and_more(&grows) {
            self.reason += "; not ready: ";
            self.reason += &grows;
        }
    }

    /// Time and memory by the newest run that published from raw files.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn expect(&mut self, history: &History) {
        let mut records = history.records.iter();
        let like =
            records.find(|record| record.status == Status::Published && record.input_bytes > 0);
        if let Some(record) = like {
            let share = self.input_bytes as f64 / record.input_bytes as f64;
            self.expected_seconds = Some(record.seconds * share);
            self.expected_memory_bytes = record.peak_memory_bytes;
        }
    }
}

/// What a job without the step ingest would do, and why.
fn results_action(is_current: bool, all: bool) -> (Action, String) {
    let (action, reason) = match (is_current, all) {
        (true, false) => (Action::Skip, "the results are up to date"),
        (true, true) => (Action::Replace, "all are reprocessed"),
        (false, _) => (
            Action::Run,
            "no results of this table, these settings and this version",
        ),
    };
    (action, reason.to_owned())
}

/// What the step ingest would do where klieg has not published, and why.
fn first_action(
    store: &Store,
    layout: &Layout,
    (period, all): (Period, bool),
) -> Result<(Action, String), RunError> {
    let (action, reason) = if !all && step::ingest::is_foreign(store, layout, period)? {
        (
            Action::Fail,
            "another tool has written it; --adopt takes it as it is, --reprocess all replaces it",
        )
    } else if period.hour.is_some()
        && step::ingest::published(store, layout, period.day.into())?.is_some()
    {
        (
            Action::Replace,
            "the day has it as published as one; it is published alone in its place",
        )
    } else {
        (Action::Run, "nothing is published")
    };
    Ok((action, reason.to_owned()))
}

/// What the step ingest would do with what is published, and why; `analyses` where the results are not up to date.
fn action(
    store: &Store,
    manifest: &Manifest,
    inputs: &Inputs,
    analyses: bool,
) -> Result<(Action, String), StoreError> {
    let rows = manifest.rows;
    if let Some(gone) = step::inputs::vanished(store, manifest)? {
        let reason = format!(
            "{gone} was read for the published day and is gone; --reprocess all replaces it"
        );
        return Ok((Action::Keep, reason));
    }
    if manifest.fingerprint != inputs.fingerprint {
        let change = step::inputs::change(manifest, inputs);
        let reason = format!("{change}; {rows} rows are published");
        return Ok((Action::Replace, reason));
    }
    if analyses {
        let reason = format!("the table is up to date ({rows} rows), its results are not");
        return Ok((Action::Run, reason));
    }
    Ok((Action::Skip, format!("up to date, {rows} rows")))
}

/// Folders that the steps publish, with the names under which they are staged.
#[must_use]
pub fn targets(steps: &[StepKind], layout: &Layout, period: Period) -> Vec<(String, PathBuf)> {
    let mut folders = Vec::new();
    for step in steps {
        match step {
            StepKind::Ingest => {
                folders.push((step::ingest::staged_name(period), layout.raw(period)));
            }
            StepKind::Suspicious => {
                let targets = step::suspicious::targets(layout, period.day).into_iter();
                folders.extend(targets.map(|(name, target)| (name.to_owned(), target)));
            }
        }
    }
    folders
}
