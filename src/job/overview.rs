//! The state of a warehouse: what is published, what failed, who is at work.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::job::History;
use crate::job::HistoryError;
use crate::job::Pipeline;
use crate::job::WORK_AREA;
use crate::store;
use crate::store::LockError;
use crate::store::Manifest;
use crate::store::StoreError;
use crate::table::hive::Day;
use crate::table::hive::Layout;

/// What `klieg status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// Each pipeline.
    pub pipelines: Vec<PipelineOverview>,
    /// Partitions that a live run has locked, and what it says about itself.
    pub live: Vec<(String, String)>,
}

/// A pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineOverview {
    /// Its name.
    pub pipeline: &'static str,
    /// Published days with their rows, by day.
    pub published: Vec<(String, u64)>,
    /// Days in the table that klieg has not published, such as those of another tool.
    pub foreign: Vec<String>,
    /// Days whose last run failed: the day, the run, the error.
    pub failed: Vec<(String, String, String)>,
}

/// Why there is no overview.
#[derive(Debug, thiserror::Error)]
pub enum OverviewError {
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What is published.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A folder of the table.
    #[error("{path}: {error}")]
    Table {
        /// Which.
        path: String,
        /// What the file system says.
        #[source]
        error: io::Error,
    },
}

impl Overview {
    /// Looks at a warehouse; needs read rights only.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn of(warehouse: &Path) -> Result<Self, OverviewError> {
        store::check_folder(warehouse)?;
        let work_area = warehouse.join(WORK_AREA);
        let history = History::read(&work_area)?;
        let of = |pipeline: Pipeline| PipelineOverview::of(warehouse, pipeline, &history);
        let pipelines: Result<_, _> = Pipeline::ALL.into_iter().map(of).collect();
        Ok(Self {
            pipelines: pipelines?,
            live: store::held_locks(&work_area)?,
        })
    }
}

impl PipelineOverview {
    fn of(warehouse: &Path, pipeline: Pipeline, history: &History) -> Result<Self, OverviewError> {
        let name = pipeline.name();
        let layout = Layout::new(warehouse, name);
        let (mut published, mut foreign) = (Vec::new(), Vec::new());
        for day in table_days(&layout.table())? {
            match Manifest::read(&layout.day(day))? {
                Some(manifest) => published.push((day.to_string(), manifest.rows)),
                None => foreign.push(day.to_string()),
            }
        }
        let mut failed: Vec<_> = history
            .failed(name)
            .map(|record| {
                let error = record.error().unwrap_or_default();
                (record.day.clone(), record.run.clone(), error)
            })
            .collect();
        failed.sort();
        Ok(Self {
            pipeline: name,
            published,
            foreign,
            failed,
        })
    }
}

/// Days that have a folder in the table, in order.
fn table_days(table: &Path) -> Result<Vec<Day>, OverviewError> {
    let mut days = Vec::new();
    for y in names(table)? {
        for m in names(&table.join(&y))? {
            for d in names(&table.join(&y).join(&m))? {
                days.extend(Day::of_hive_dirs(&y, &m, &d));
            }
        }
    }
    days.sort();
    Ok(days)
}

/// Names of the partition folders in a folder; none where it is missing.
fn names(folder: &Path) -> Result<Vec<String>, OverviewError> {
    let paths = store::list(folder).map_err(|error| OverviewError::Table {
        path: folder.display().to_string(),
        error,
    })?;
    let folders = paths.iter().filter(|path| path.is_dir());
    let names = folders.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(names.filter(|name| name.contains('=')).collect())
}
