//! What publications have replaced: kept for a while, brought back on request.
//!
//! `.klieg/trash/<run>/<key>/<name>` is what the folder `name` of the partition `key` was before that run published it.

use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::Utc;

use crate::store::DayLock;
use crate::store::PublishError;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::journal;
use crate::store::journal::Swap;

/// Where what was replaced is kept.
pub(super) fn folder(store: &Store) -> PathBuf {
    store.work_area().join("trash")
}

/// When a run began, by its name (`20160708T010203Z-1a2b3c4d`).
fn began(run: &str) -> Option<DateTime<Utc>> {
    let time = run.split('-').next()?;
    let time = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").ok()?;
    Some(time.and_utc())
}

/// Removes what was replaced longer than `keep` ago; returns the runs that had replaced it.
///
/// # Errors
/// A folder cannot be listed or removed.
pub fn clear(store: &Store, keep: Duration, now: SystemTime) -> Result<Vec<String>, StoreError> {
    let folder = folder(store);
    let now = DateTime::<Utc>::from(now);
    let mut cleared = Vec::new();
    for entry in store.list(&folder).map_err(store.at(&folder))? {
        let run = entry.name();
        let age = began(&run).and_then(|began| (now - began).to_std().ok());
        if age.is_some_and(|age| age >= keep) {
            let path = &entry.path;
            store.files().remove(path).map_err(store.at(path))?;
            cleared.push(run);
        }
    }
    Ok(cleared)
}

/// What publications of a partition have replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// The run that replaced it.
    pub by: String,
    /// Name under which it was staged.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Lists what is kept of a partition, by run and name.
///
/// # Errors
/// A folder cannot be listed.
pub fn replaced(store: &Store, key: &str) -> Result<Vec<Replaced>, StoreError> {
    let folder = folder(store);
    let mut found = Vec::new();
    for run in store.list(&folder).map_err(store.at(&folder))? {
        let path = run.path.join(key);
        for entry in store.list(&path).map_err(store.at(&path))? {
            found.push(Replaced {
                by: run.name(),
                name: entry.name(),
                path: entry.path,
            });
        }
    }
    Ok(found)
}

/// Puts folders back in the place of those that are there now, as a publication of the run `run`.
///
/// # Errors
/// The file system; where it says so, the publication is half done.
pub fn put_back(
    store: &Store,
    (key, run): (&str, &str),
    lock: &DayLock,
    folders: Vec<(Replaced, PathBuf)>,
) -> Result<(), PublishError> {
    let mut swaps = Vec::with_capacity(folders.len());
    for (replaced, target) in folders {
        let folders = (replaced.path, target);
        swaps.push(Swap::plan(store, (key, run), &replaced.name, folders)?);
    }
    journal::publish(store, (key, run), lock, swaps)
}
