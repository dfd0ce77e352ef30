//! The state of a warehouse: what is published, what failed, who is at work.

use std::path::Path;

use serde::Serialize;

use crate::engine::cluster;
use crate::engine::cluster::Driver;
use crate::job::History;
use crate::job::Pipeline;
use crate::job::RunError;
use crate::step::day_table::DayTable;
use crate::store;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::files::Entry;
use crate::table::hive::Day;
use crate::table::hive::Layout;

/// What `klieg status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// Each pipeline.
    pub pipelines: Vec<PipelineOverview>,
    /// Drivers that use pools of workers.
    pub drivers: Vec<Driver>,
    /// Partitions that a live run has locked, and what it says about itself.
    pub live: Vec<(String, String)>,
    /// Partitions whose publication a killed run has left half done.
    pub half_published: Vec<String>,
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

impl Overview {
    /// Looks at a warehouse; needs read rights only.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn of(store: &Store) -> Result<Self, RunError> {
        store.check_folder(store.root())?;
        let history = History::read(store)?;
        let of = |pipeline: Pipeline| PipelineOverview::of(store, pipeline, &history);
        let pipelines: Result<_, _> = Pipeline::ALL.into_iter().map(of).collect();
        let live = store::held_locks(store)?;
        let mut drivers = cluster::drivers(store)?;
        // Of one that was killed, the file is left.
        drivers.retain(|driver| {
            live.iter()
                .any(|(lock, _)| *lock == cluster::lock(&driver.pool))
        });
        Ok(Self {
            pipelines: pipelines?,
            drivers,
            live,
            half_published: store.half_published()?,
        })
    }
}

impl PipelineOverview {
    fn of(store: &Store, pipeline: Pipeline, history: &History) -> Result<Self, StoreError> {
        let name = pipeline.name();
        let layout = Layout::new(store.root(), name);
        let (mut published, mut foreign) = (Vec::new(), Vec::new());
        for day in table_days(store, &layout.table())? {
            match DayTable::read(store, &layout, day)? {
                Some(table) => published.push((day.to_string(), table.rows)),
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
fn table_days(store: &Store, table: &Path) -> Result<Vec<Day>, StoreError> {
    let mut days = Vec::new();
    for y in names(store, table)? {
        for m in names(store, &table.join(&y))? {
            for d in names(store, &table.join(&y).join(&m))? {
                days.extend(Day::of_hive_dirs(&y, &m, &d));
            }
        }
    }
    days.sort();
    Ok(days)
}

/// Names of the partition folders in a folder; none where it is missing.
fn names(store: &Store, folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = store.list(folder).map_err(store.at(folder))?;
    let folders = entries.iter().filter(|entry| entry.is_folder);
    let names = folders.map(Entry::name);
    Ok(names.filter(|name| name.contains('=')).collect())
}
