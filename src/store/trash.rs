//! What publications have replaced: kept for a while, brought back on request.
//!
//! `.klieg/trash/<run>/<key>/<name>` is what the folder `name` of the partition `key` was before that run published it; versions of
//! partitions stay where they are (`versions`).

use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::store::DayLock;
use crate::store::Places;
use crate::store::PublishError;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::journal;
use crate::store::journal::Moves;
use crate::store::journal::Swap;
use crate::store::versions;
use crate::store::versions::Folders;
use crate::store::versions::Switch;

/// Where what was replaced is kept.
pub(super) fn folder(store: &Store) -> PathBuf {
    store.work_area().join("trash")
}

/// True where something was replaced longer than `keep` ago; `replaced_ns` since 1970.
pub(super) fn is_older(replaced_ns: u64, keep: Duration, now: SystemTime) -> bool {
    let replaced = UNIX_EPOCH + Duration::from_nanos(replaced_ns);
    now.duration_since(replaced).is_ok_and(|age| age >= keep)
}

/// Removes what was replaced longer than `keep` ago; returns the runs that had replaced it.
///
/// # Errors
/// A folder cannot be listed or removed.
pub fn clear(store: &Store, keep: Duration, now: SystemTime) -> Result<Vec<String>, StoreError> {
    let folder = folder(store);
    let mut cleared = versions::clear(store, keep, now)?;
    let mut old = store.list(&folder).map_err(store.at(&folder))?;
    old.retain(|entry| is_older(entry.modified_ns, keep, now));
    // A roll-back that is half done takes its folders from here.
    let pending = match old.is_empty() {
        true => Vec::new(),
        false => store.half_published()?,
    };
    for entry in old {
        let mut keys = pending.iter().map(|key| entry.path.join(key));
        if keys.any(|path| !matches!(store.files().status(&path), Ok(None))) {
            continue;
        }
        let path = &entry.path;
        store.files().remove(path).map_err(store.at(path))?;
        cleared.insert(entry.name());
    }
    Ok(cleared.into_iter().collect())
}

/// What publications of a partition have replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// The run that replaced it.
    pub by: String,
    /// Name under which it was staged.
    pub name: String,
    kept: Kept,
}

/// How it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Kept {
    /// In the trash.
    Folder(PathBuf),
    /// Where it lay.
    Versions(Folders),
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
                kept: Kept::Folder(entry.path),
            });
        }
    }
    for former in Places::read(store, key)?.replaced() {
        found.push(Replaced {
            by: former.by.clone(),
            name: former.name.clone(),
            kept: Kept::Versions(former.folders.clone()),
        });
    }
    Ok(found)
}

/// Puts folders of the run `to` back in the place of those that are there now, as a publication of the run `run`.
///
/// # Errors
/// The file system; where it says so, the publication is half done.
pub fn put_back(
    store: &Store,
    (key, run): (&str, &str),
    lock: &DayLock,
    to: &str,
    folders: Vec<(Replaced, PathBuf)>,
) -> Result<(), PublishError> {
    versions::check(store, key)?;
    let mut moves = Moves {
        to: Some(to.to_owned()),
        ..Moves::default()
    };
    for (Replaced { name, kept, .. }, target) in folders {
        match kept {
            Kept::Versions(folders) => moves.switches.push(Switch::back(&name, target, folders)),
            Kept::Folder(path) if store.is_versioned(&target) => {
                moves.switches.push(Switch::back_home(&name, target, path));
            }
            Kept::Folder(path) => {
                let swap = Swap::plan(store, (key, run), &name, (path, target))?;
                moves.swaps.push(swap);
            }
        }
    }
    journal::publish(store, (key, run), lock, moves)?;
    Ok(())
}
