//! Run reports: one closed file for each run and day, `<work area>/history/<run>/<pipeline>-<day>.json`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::parallel;
use crate::store::AT_ONCE;
use crate::store::Store;
use crate::store::StoreError;
use crate::table::period::Period;

/// How a run of a day ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// At least one step published.
    Published,
    /// A step failed.
    Failed,
    /// What an earlier run had published is there again.
    RolledBack,
}

impl Status {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Failed => "failed",
            Self::RolledBack => "rolledback",
        }
    }
}

/// What a run did to a day. Runs that found a day up to date leave none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// Name of the run; it starts with its time.
    pub run: String,
    /// Name of the job.
    pub job: String,
    /// Pipeline.
    pub pipeline: String,
    /// The day, 2016-07-08, or hour, 2016-07-08T07.
    pub day: String,
    /// klieg's version.
    pub version: String,
    /// How it ended.
    pub status: Status,
    /// When it started, RFC 3339 with milliseconds, UTC: texts sort by time.
    pub started: String,
    /// Seconds.
    pub seconds: f64,
    /// The most memory that the process had until then, bytes; `None` where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Length of the raw files that were read.
    pub input_bytes: u64,
    /// Every key of the configuration.
    pub configuration: BTreeMap<String, String>,
    /// Hash of it.
    #[serde(default)]
    pub configuration_hash: String,
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// What people were warned of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What each step reports; of a failure the step, the error, and the steps before.
    pub outcome: Value,
}

/// Records of a work area.
#[derive(Debug, Default)]
pub struct History {
    /// Newest first.
    pub records: Vec<Record>,
    /// Files that are no record, such as those of an older version.
    pub unreadable: Vec<PathBuf>,
}

fn folder(store: &Store) -> PathBuf {
    store.work_area().join("history")
}

impl Record {
    /// Writes the record under its run.
    ///
    /// # Errors
    /// The file system.
    pub fn write(&self, store: &Store) -> Result<(), StoreError> {
        let folder = folder(store).join(&self.run);
        let path = folder.join(format!("{}-{}.json", self.pipeline, self.day));
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| store.at(&path)(error.into()))?;
        let files = store.files();
        files.make_folder(&folder).map_err(store.at(&folder))?;
        files.put(&path, &text).map_err(store.at(&path))
    }

    /// Returns rows of the raw table, 0 where it was not made.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let steps = self.outcome["steps"].as_array();
        let first = steps.and_then(|steps| steps.first());
        first.and_then(|step| step["rows"].as_u64()).unwrap_or(0)
    }

    /// Returns the error of a failed run.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let text = |key: &str| self.outcome[key].as_str();
        Some(format!("{}: {}", text("step")?, text("error")?))
    }
}

impl History {
    /// Reads all records; a work area without history has none.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn read(store: &Store) -> Result<Self, StoreError> {
        let folder = folder(store);
        let runs = store.list(&folder).map_err(store.at(&folder))?;
        let mut history = Self::of_runs(store, runs.into_iter().map(|run| run.path).collect())?;
        // Names of runs of one second do not tell which was first.
        let newest_first = |left: &Record, right: &Record| right.started.cmp(&left.started);
        history.records.sort_by(newest_first);
        Ok(history)
    }

    /// Reads the records of one run; empty where there is no such run.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn read_run(store: &Store, run: &str) -> Result<Self, StoreError> {
        // A name from outside must not lead elsewhere.
        if run.is_empty() || run.contains(['/', '\\', '.']) {
            return Ok(Self::default());
        }
        Self::of_runs(store, vec![folder(store).join(run)])
    }

    fn of_runs(store: &Store, mut runs: Vec<PathBuf>) -> Result<Self, StoreError> {
        runs.reverse();
        let listed = parallel::map(AT_ONCE, &runs, |run| store.list(run).map_err(store.at(run)));
        let mut paths = Vec::new();
        for entries in listed {
            paths.extend(entries?.into_iter().map(|entry| entry.path));
        }
        let texts = parallel::map(AT_ONCE, &paths, |path| {
            store.read(path).map_err(store.at(path))
        });
        let mut history = Self::default();
        for (path, text) in paths.into_iter().zip(texts) {
            match serde_json::from_slice(&text?.unwrap_or_default()) {
                Ok(record) => history.records.push(record),
                Err(_) => history.unreadable.push(path),
            }
        }
        Ok(history)
    }

    /// Returns the newest record of a day or hour.
    #[must_use]
    pub fn last(&self, pipeline: &str, period: Period) -> Option<&Record> {
        let day = period.to_string();
        let mut records = self.records.iter();
        records.find(|record| record.pipeline == pipeline && record.day == day)
    }

    /// Returns the newest record of each day where it is a failure.
    pub fn failed<'a>(&'a self, pipeline: &'a str) -> impl Iterator<Item = &'a Record> {
        let mut seen = BTreeSet::new();
        let of_pipeline = self
            .records
            .iter()
            .filter(move |record| record.pipeline == pipeline);
        let newest = of_pipeline.filter(move |record| seen.insert(record.day.clone()));
        newest.filter(|record| record.status == Status::Failed)
    }

    /// Returns whether the newest run of a day or hour failed.
    #[must_use]
    pub fn has_failed(&self, pipeline: &str, period: Period) -> bool {
        let last = self.last(pipeline, period);
        last.is_some_and(|record| record.status == Status::Failed)
    }
}
