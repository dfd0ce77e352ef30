//! What an operator does to partitions beside running jobs: finish, bring back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::json;

use crate::job::History;
use crate::job::Partition;
use crate::job::Record;
use crate::job::RunOptions;
use crate::job::Status;
use crate::job::StepKind;
use crate::job::run::DayError;
use crate::job::run::owner;
use crate::job::targets;
use crate::step::ingest;
use crate::step::ingest::staged_hour;
use crate::step::ingest::staged_name;
use crate::store::DayLock;
use crate::store::Finished;
use crate::store::Recorder;
use crate::store::Replaced;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::put_back;
use crate::store::replaced;
use crate::table::hive::Layout;
use crate::table::period::Period;

/// A publication that a killed run had left half done.
#[derive(Debug)]
pub struct Recovered {
    /// Name of the partition's lock.
    pub key: String,
    /// The runs that had begun it, none where another has finished it meanwhile; or why it is not finished.
    pub result: Result<Vec<String>, DayError>,
}

/// Finishes what killed runs have begun to publish.
///
/// # Errors
/// The journal cannot be listed.
pub fn recover(options: &RunOptions) -> Result<Vec<Recovered>, StoreError> {
    let finish = |key: &String| {
        let lock = DayLock::take(&options.store, key, &owner(&options.run_id))?;
        recover_key(options, key, &lock)
    };
    let keys = options.store.half_published()?.into_iter();
    let recovered = keys.map(|key| Recovered {
        result: finish(&key),
        key,
    });
    Ok(recovered.collect())
}

/// Finishes what killed runs have begun to publish of one partition.
pub(super) fn recover_key(
    options: &RunOptions,
    key: &str,
    lock: &DayLock,
) -> Result<Vec<String>, DayError> {
    let finished = options.store.recover(key, lock)?.into_iter();
    Ok(finished.map(|finished| finished.run).collect())
}

/// Keeps records of publications for the history until the run that made them has its own: it may be killed before.
#[derive(Clone, Debug)]
pub struct Chronicle {
    /// The run that finishes them.
    pub run_id: String,
    /// The clock.
    pub now: fn() -> SystemTime,
}

impl Recorder for Chronicle {
    fn record(&self, store: &Store, key: &str, finished: &Finished) -> Result<(), StoreError> {
        let Finished { run, to, names } = finished;
        let Ok(mut partition) = key.parse::<Partition>() else {
            return Ok(());
        };
        partition.period.hour = names.first().and_then(|name| staged_hour(name));
        let mut folders = names.clone();
        // Of an earlier step of the same run.
        let known = History::read_run(store, run)?;
        let earlier = known.last(partition.pipeline.name(), partition.period);
        for name in earlier.into_iter().flat_map(changed) {
            if !folders.contains(&name) {
                folders.push(name);
            }
        }
        let mut outcome = json!({ "recovered_by": self.run_id, "folders": folders });
        let status = match to {
            None => Status::Published,
            Some(to) => {
                outcome["to"] = to.as_str().into();
                Status::RolledBack
            }
        };
        record(partition, (self.now)(), (run, status), outcome).write(store)
    }
}

/// A partition that was brought back.
#[derive(Clone, Debug, Serialize)]
pub struct RolledBack {
    /// The partition.
    pub partition: String,
    /// The run whose result is there again.
    pub to: String,
    /// The run that this was.
    pub run: String,
    /// Folders that were put back; the others were as `to` had left them.
    pub folders: Vec<String>,
    /// Folders that `to` had left otherwise and that are not kept any more.
    pub gone: Vec<String>,
}

/// Brings a partition back to what it was after the run `to`; a publication itself, with its own run and record. Nothing is changed
/// where a folder that is needed is gone.
///
/// # Errors
/// A live run has the partition, or the file system.
pub fn roll_partition_back(
    partition: Partition,
    to: &str,
    options: &RunOptions,
) -> Result<RolledBack, DayError> {
    let (store, run) = (&options.store, &options.run_id);
    let key = partition.key();
    let lock = DayLock::take(store, &key, &owner(run))?;
    recover_key(options, &key, &lock)?;
    let lineage = Lineage::of(&History::read(store)?, partition);
    let layout = Layout::new(store.root(), partition.pipeline.name());
    let kept = replaced(store, &key)?;
    let (mut folders, mut gone) = (Vec::new(), Vec::new());
    for (name, target) in targets(steps_of(partition), &layout, partition.period) {
        let wanted = lineage.after(to, &name);
        if wanted.is_none() || wanted == lineage.now(&name) {
            continue;
        }
        let holds =
            |kept: &&Replaced| kept.name == name && lineage.before(&kept.by, &name) == wanted;
        match kept.iter().find(holds) {
            Some(kept) => folders.push((kept.clone(), target)),
            None => gone.push(name.clone()),
        }
    }
    let mut done = RolledBack {
        partition: partition.to_string(),
        to: to.to_owned(),
        run: run.clone(),
        folders: Vec::new(),
        gone,
    };
    if folders.is_empty() || !done.gone.is_empty() {
        return Ok(done);
    }
    let name = |(kept, _): &(Replaced, PathBuf)| kept.name.clone();
    done.folders = folders.iter().map(name).collect();
    put_back(store, (&key, run), &lock, to, folders)?;
    let status = (run.as_str(), Status::RolledBack);
    record(partition, (options.now)(), status, json!(done)).write(store)?;
    Ok(done)
}

/// Steps whose folders a partition has.
fn steps_of(partition: Partition) -> &'static [StepKind] {
    match partition.period.hour {
        Some(_) => &[StepKind::Ingest],
        None => &StepKind::ALL,
    }
}

fn record(
    partition: Partition,
    now: SystemTime,
    (run, status): (&str, Status),
    outcome: serde_json::Value,
) -> Record {
    let clock = chrono::DateTime::<chrono::Utc>::from(now);
    Record {
        run: run.to_owned(),
        job: String::new(),
        pipeline: partition.pipeline.name().to_owned(),
        day: partition.period.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        status,
        started: clock.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        seconds: 0.0,
        peak_memory_bytes: None,
        input_bytes: 0,
        configuration: BTreeMap::new(),
        configuration_hash: String::new(),
        seed: 0,
        warnings: Vec::new(),
        outcome,
    }
}

/// Which run made each folder of a partition, after each run that changed one.
struct Lineage {
    states: Vec<(String, BTreeMap<String, String>)>,
}

impl Lineage {
    fn of(history: &History, partition: Partition) -> Self {
        let pipeline = partition.pipeline.name();
        let mut lineage = Self { states: Vec::new() };
        // Newest first.
        for record in history.records.iter().rev() {
            let period = record.day.parse::<Period>().ok();
            if let Some(period) = period.filter(|_| record.pipeline == pipeline)
                && period.day == partition.period.day
            {
                lineage.add(record, partition.period, period);
            }
        }
        lineage
    }

    /// Adds a record of the day, which changes its hours too, or of an hour, which changes the day too.
    fn add(&mut self, record: &Record, own: Period, changed_period: Period) {
        if own.hour.is_some()
            && changed_period
                .hour
                .is_some_and(|hour| own.hour != Some(hour))
        {
            return;
        }
        let mut state = self
            .states
            .last()
            .map(|last| last.1.clone())
            .unwrap_or_default();
        let to = record.outcome["to"].as_str();
        for name in changed(record) {
            let is_raw = name == ingest::NAME || staged_hour(&name).is_some();
            let name = if is_raw { staged_name(own) } else { name };
            let maker = match to {
                Some(to) => self.after(to, &name).unwrap_or_default().to_owned(),
                None => record.run.clone(),
            };
            state.insert(name, maker);
        }
        self.states.push((record.run.clone(), state));
    }

    fn now(&self, name: &str) -> Option<&str> {
        Some(self.states.last()?.1.get(name)?)
    }

    fn after(&self, run: &str, name: &str) -> Option<&str> {
        let mut states = self.states.iter().rev();
        Some(states.find(|state| state.0 == run)?.1.get(name)?)
    }

    fn before(&self, run: &str, name: &str) -> Option<&str> {
        let index = self.states.iter().position(|state| state.0 == run)?;
        Some(self.states.get(index.checked_sub(1)?)?.1.get(name)?)
    }
}

/// Names of the folders that a run changed.
fn changed(record: &Record) -> Vec<String> {
    if let Some(folders) = record.outcome["folders"].as_array() {
        let names = folders.iter().filter_map(|name| name.as_str());
        return names.map(str::to_owned).collect();
    }
    let layout = Layout::new(std::path::Path::new("/"), &record.pipeline);
    let Ok(period) = record.day.parse() else {
        return Vec::new();
    };
    let steps = record.outcome["steps"].as_array().into_iter().flatten();
    let published = steps.filter(|step| step["published"].as_bool() == Some(true));
    let kinds = published.filter_map(|step| {
        let name = step["step"].as_str()?;
        StepKind::ALL.into_iter().find(|kind| kind.name() == name)
    });
    let kinds: Vec<_> = kinds.collect();
    let targets = targets(&kinds, &layout, period).into_iter();
    targets.map(|(name, _)| name).collect()
}
