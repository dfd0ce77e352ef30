//! The journal of a publication: what a run that was killed in the middle of it has left to do.
//!
//! ```text
//! all folders staged and verified ─► lock still ours ─► journal ─► for each folder: old one to the trash, staged one in its place
//!                                                                  ─► _SUCCESS ─► journal removed
//! ```
//! Once there is a journal, everything that it names is complete: whoever finds it finishes the publication, in any state in
//! which it was left. Before that nothing of what is published was touched.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::store::DayLock;
use crate::store::LockError;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::fail;
use crate::store::trash;

/// The form of the journal that this version writes and reads.
const VERSION: u32 = 1;
/// Empty file that says to schedulers that a folder is complete (Oozie's done-flag).
const SUCCESS: &str = "_SUCCESS";

/// A folder that takes the place of another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Swap {
    /// The new one.
    pub(super) staged: PathBuf,
    /// Where it goes.
    pub(super) target: PathBuf,
    /// Where the old one goes.
    pub(super) old: PathBuf,
    /// Number of the new one, where the file system has such numbers.
    pub(super) id: Option<(u64, u64)>,
}

impl Swap {
    /// Plans a swap of the run `run` of the partition `key`; the old folder is kept under `name`.
    ///
    /// # Errors
    /// The staged folder cannot be looked at.
    pub(super) fn plan(
        store: &Store,
        (key, run): (&str, &str),
        name: &str,
        (staged, target): (PathBuf, PathBuf),
    ) -> Result<Self, StoreError> {
        let entry = store.files().status(&staged).map_err(store.at(&staged))?;
        Ok(Self {
            old: trash::folder(store).join(run).join(key).join(name),
            id: entry.and_then(|entry| entry.id),
            staged,
            target,
        })
    }
}

/// What is to be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Journal {
    version: u32,
    run: String,
    swaps: Vec<Swap>,
}

/// Why a publication was not finished.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Before anything was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Before anything was changed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// In the middle.
    #[error(
        "{error}; the publication is half done: run again, or klieg recover, when that is mended"
    )]
    HalfDone {
        /// What stopped it.
        #[source]
        error: StoreError,
    },
    /// A journal that this version does not know.
    #[error("{path}: a journal of another version of klieg; recover with that version")]
    Version {
        /// The journal.
        path: String,
    },
}

fn path(store: &Store, key: &str) -> PathBuf {
    store
        .work_area()
        .join("journal")
        .join(format!("{key}.json"))
}

/// Publishes folders that are staged and verified.
pub(super) fn publish(
    store: &Store,
    (key, run): (&str, &str),
    lock: &DayLock,
    swaps: Vec<Swap>,
) -> Result<(), PublishError> {
    let files = store.files();
    for swap in &swaps {
        let folder = swap.target.parent().unwrap_or(&swap.target);
        files.make_folder(folder).map_err(store.at(folder))?;
    }
    fail::point("before the fence");
    lock.fence()?;
    fail::point("before the journal");
    let journal = Journal {
        version: VERSION,
        run: run.to_owned(),
        swaps,
    };
    let path = path(store, key);
    let text =
        serde_json::to_vec_pretty(&journal).map_err(|error| store.at(&path)(error.into()))?;
    let folder = path.parent().unwrap_or(&path);
    files.make_folder(folder).map_err(store.at(folder))?;
    files.put(&path, &text).map_err(store.at(&path))?;
    fail::point("after the journal");
    finish(store, &path, &journal).map_err(|error| PublishError::HalfDone { error })
}

/// What a killed run had begun to publish.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finished {
    /// Its name.
    pub run: String,
    /// Names under which the folders were staged.
    pub names: Vec<String>,
}

/// Finishes what a killed run of this key has begun to publish. The caller holds the lock.
pub(super) fn recover(store: &Store, key: &str) -> Result<Option<Finished>, PublishError> {
    let path = path(store, key);
    let Some(text) = store.read(&path).map_err(store.at(&path))? else {
        return Ok(None);
    };
    let journal = serde_json::from_slice::<Journal>(&text)
        .ok()
        .filter(|journal| journal.version == VERSION);
    let Some(journal) = journal else {
        return Err(PublishError::Version {
            path: store.url(&path),
        });
    };
    finish(store, &path, &journal).map_err(|error| PublishError::HalfDone { error })?;
    Ok(Some(Finished {
        names: journal.swaps.iter().map(name).collect(),
        run: journal.run,
    }))
}

/// Keys of all journals.
pub(super) fn pending(store: &Store) -> io::Result<Vec<String>> {
    let entries = store.list(&store.work_area().join("journal"))?;
    let keys = entries.iter().map(|entry| entry.name());
    let keys = keys.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    Ok(keys.collect())
}

fn finish(store: &Store, path: &Path, journal: &Journal) -> Result<(), StoreError> {
    for (index, swap) in journal.swaps.iter().enumerate() {
        finish_swap(store, swap)?;
        fail::point(&format!("after folder {index}"));
    }
    for swap in &journal.swaps {
        let success = swap.target.join(SUCCESS);
        let files = store.files();
        if files
            .status(&success)
            .map_err(store.at(&success))?
            .is_none()
        {
            files.put(&success, b"").map_err(store.at(&success))?;
        }
    }
    fail::point("after _SUCCESS");
    store.files().remove(path).map_err(store.at(path))?;
    fail::point("after the journal is removed");
    Ok(())
}

/// From any state to: the new one in its place, the old one in the trash.
fn finish_swap(store: &Store, swap: &Swap) -> Result<(), StoreError> {
    let files = store.files();
    let Swap {
        staged,
        target,
        old,
        id,
    } = swap;
    let look = |path: &PathBuf| files.status(path).map_err(store.at(path));
    let Some(found) = look(staged)? else {
        // Its name was changed already. Where it is gone all the same, the old one is better than none.
        if look(target)?.is_none() && look(old)?.is_some() {
            files.rename(old, target).map_err(store.at(target))?;
        }
        return Ok(());
    };
    // Two folders that changed places: what is staged is the old one.
    if id.is_some() && *id != found.id {
        return to_trash(store, staged, old);
    }
    if look(target)?.is_none() {
        return files.rename(staged, target).map_err(store.at(target));
    }
    if files.exchange(staged, target).map_err(store.at(target))? {
        fail::point(&format!("after the exchange of {}", name(swap)));
        return to_trash(store, staged, old);
    }
    to_trash(store, target, old)?;
    fail::point(&format!("between the renames of {}", name(swap)));
    files.rename(staged, target).map_err(store.at(target))
}

/// The name under which a folder was staged.
fn name(swap: &Swap) -> String {
    let name = swap.old.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn to_trash(store: &Store, folder: &Path, old: &Path) -> Result<(), StoreError> {
    let files = store.files();
    let parent = old.parent().unwrap_or(old);
    files.make_folder(parent).map_err(store.at(parent))?;
    files.rename(folder, old).map_err(store.at(old))
}
