//! The journal of a publication: what a run that was killed in the middle of it has left to do.
//!
//! ```text
//! all folders staged and verified ─► lock still ours ─► journal ─► catalog gets hours that are new, still empty
//!              ─► for each folder: lock still ours ─► old one to the trash, staged one in its place ─► versions switched
//!              ─► catalog is told ─► _SUCCESS ─► history ─► journal removed
//! ```
//! Once there is a journal, everything that it names is complete: whoever finds it finishes the publication, in any state in
//! which it was left. Before that nothing of what is published was touched. A journal has the name of its run, so that a run that was
//! frozen for longer than its lease and wakes up never takes that of another for its own; it finds that the lock is lost before the next
//! folder, and the renames that it was about to do fail, since whoever took over has done them. One that it writes only then names
//! nothing that is there any more: it is void, and removed.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;

use crate::store::DayLock;
use crate::store::LockError;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::Publication;
use crate::store::SUCCESS;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::fail;
use crate::store::trash;
use crate::store::versions;
use crate::store::versions::Switch;

/// The form of the journal that this version writes and reads.
const VERSION: u32 = 2;

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
    /// When the manifest in the new one was written, nanoseconds since 1970: renames do not change it.
    stamp: Option<u64>,
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
            stamp: stamp(store, &staged)?,
            staged,
            target,
        })
    }

    /// True where the new one is neither staged nor in its place.
    fn is_void(&self, store: &Store) -> Result<bool, StoreError> {
        let look = |path: &PathBuf| store.files().status(path).map_err(store.at(path));
        if self.stamp.is_none() || look(&self.staged)?.is_some() || look(&self.target)?.is_none() {
            return Ok(false);
        }
        Ok(stamp(store, &self.target)? != self.stamp)
    }
}

fn stamp(store: &Store, folder: &Path) -> Result<Option<u64>, StoreError> {
    let path = folder.join(Manifest::NAME);
    let entry = store.files().status(&path).map_err(store.at(&path))?;
    Ok(entry.map(|entry| entry.modified_ns))
}

/// A folder of another tool that is taken as it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Adoption {
    pub(super) name: String,
    pub(super) target: PathBuf,
    /// Text of the manifest that it gets.
    pub(super) manifest: String,
}

impl Adoption {
    /// True where the folder has been published meanwhile.
    fn is_void(&self, store: &Store) -> Result<bool, StoreError> {
        let path = self.target.join(Manifest::NAME);
        let found = store.read(&path).map_err(store.at(&path))?;
        Ok(found.is_some_and(|found| found != self.manifest.as_bytes()))
    }
}

/// What is to be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Journal {
    version: u32,
    run: String,
    #[serde(default)]
    to: Option<String>,
    swaps: Vec<Swap>,
    switches: Vec<Switch>,
    adoptions: Vec<Adoption>,
}

impl Journal {
    fn finished(&self) -> Finished {
        let folders = folders(self).into_iter();
        Finished {
            run: self.run.clone(),
            to: self.to.clone(),
            names: folders.map(|(name, _)| name).collect(),
        }
    }

    /// True where nothing of it is there any more: its run was frozen just before it wrote it, and whoever took over meanwhile has
    /// removed what was staged.
    fn is_void(&self, store: &Store) -> Result<bool, StoreError> {
        for swap in &self.swaps {
            if !swap.is_void(store)? {
                return Ok(false);
            }
        }
        for switch in &self.switches {
            if !switch.is_void(store)? {
                return Ok(false);
            }
        }
        for adoption in &self.adoptions {
            if !adoption.is_void(store)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a publication does: folders that change places, partitions of `layout: versioned`, folders that are taken as they are.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// The run whose result is put back; none where folders are new.
    pub(super) to: Option<String>,
    pub(super) swaps: Vec<Swap>,
    pub(super) switches: Vec<Switch>,
    pub(super) adoptions: Vec<Adoption>,
}

/// A publication that is finished.
#[derive(Debug)]
pub struct Published {
    /// Where partitions lie now.
    pub places: Places,
    /// The longest time for which a folder that changed places was missing to readers; zero where folders are exchanged in one step,
    /// where nothing was replaced, and for what a killed run had begun.
    pub absent: Duration,
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
    /// In the middle, by a run that has the lock now and finished what was begun.
    #[error("{0}; the run that has it now finishes what was begun")]
    Overtaken(#[source] LockError),
    /// In the middle.
    #[error(
        "{error}; the publication is half done: run again, or klieg recover, when that is mended"
    )]
    HalfDone {
        /// What stopped it.
        #[source]
        error: StoreError,
    },
    /// The warehouse was published in the other layout.
    #[error(
        "{path}: partitions lie in versions; set layout: versioned, a warehouse does not change back"
    )]
    Layout {
        /// Where they lie.
        path: String,
    },
    /// A journal that this version does not know.
    #[error("{path}: a journal of another version of klieg; recover with that version")]
    Version {
        /// The journal.
        path: String,
    },
}

/// Journals of a partition.
fn folder(store: &Store, key: &str) -> PathBuf {
    store.work_area().join("journal").join(key)
}

/// Publishes folders that are staged and verified.
pub(super) fn publish(
    store: &Store,
    (key, run): (&str, &str),
    lock: &DayLock,
    moves: Moves,
) -> Result<Published, PublishError> {
    let files = store.files();
    for swap in &moves.swaps {
        let folder = swap.target.parent().unwrap_or(&swap.target);
        files.make_folder(folder).map_err(store.at(folder))?;
    }
    fail::point("before the fence");
    fence(lock)?;
    fail::point("before the journal");
    let journal = Journal {
        version: VERSION,
        run: run.to_owned(),
        to: moves.to,
        swaps: moves.swaps,
        switches: moves.switches,
        adoptions: moves.adoptions,
    };
    let folder = folder(store, key);
    let path = folder.join(format!("{run}.json"));
    let text =
        serde_json::to_vec_pretty(&journal).map_err(|error| store.at(&path)(error.into()))?;
    files.make_folder(&folder).map_err(store.at(&folder))?;
    files.put(&path, &text).map_err(store.at(&path))?;
    fail::point("after the journal");
    let finished = finish(store, (key, lock), &path, &journal);
    if matches!(finished, Err(PublishError::Overtaken(_))) && journal.is_void(store)? {
        // Written too late for whoever took over to see.
        files.remove(&path).map_err(store.at(&path))?;
    }
    finished
}

/// Before the journal nothing is begun.
fn fence(lock: &DayLock) -> Result<(), PublishError> {
    lock.fence().map_err(|error| match error {
        LockError::Lost { path, error } => PublishError::Lock(LockError::Lost {
            path,
            error: io::Error::new(error.kind(), format!("{error}; nothing was published")),
        }),
        other => PublishError::Lock(other),
    })
}

/// A publication that is finished, perhaps for a run that was killed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finished {
    /// Its name.
    pub run: String,
    /// The run whose result it put back.
    pub to: Option<String>,
    /// Names under which the folders were staged.
    pub names: Vec<String>,
}

/// Finishes what killed runs of this key have begun to publish, the oldest first.
pub(super) fn recover(
    store: &Store,
    key: &str,
    lock: &DayLock,
) -> Result<Vec<Finished>, PublishError> {
    let folder = folder(store, key);
    let mut finished = Vec::new();
    for entry in store.list(&folder).map_err(store.at(&folder))? {
        let path = entry.path;
        if !is_journal(&path) {
            // Its run was killed while it wrote it, and has begun nothing.
            store.files().remove(&path).map_err(store.at(&path))?;
            continue;
        }
        let Some(text) = store.read(&path).map_err(store.at(&path))? else {
            continue;
        };
        let journal = serde_json::from_slice::<Journal>(&text)
            .ok()
            .filter(|journal| journal.version == VERSION);
        let Some(journal) = journal else {
            return Err(PublishError::Version {
                path: store.url(&path),
            });
        };
        if journal.is_void(store)? {
            store.files().remove(&path).map_err(store.at(&path))?;
            continue;
        }
        finish(store, (key, lock), &path, &journal)?;
        finished.push(journal.finished());
    }
    Ok(finished)
}

/// Keys of all journals.
pub(super) fn pending(store: &Store) -> io::Result<Vec<String>> {
    let mut keys = Vec::new();
    for entry in store.list(&store.work_area().join("journal"))? {
        if is_pending(store, &entry.name())? {
            keys.push(entry.name());
        }
    }
    Ok(keys)
}

/// True where a publication of a key is not finished.
pub(super) fn is_pending(store: &Store, key: &str) -> io::Result<bool> {
    let journals = store.list(&folder(store, key))?;
    Ok(journals.iter().any(|entry| is_journal(&entry.path)))
}

/// False for what a run that was killed has left of one.
fn is_journal(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".json") && !name.starts_with('.')
}

fn finish(
    store: &Store,
    (key, lock): (&str, &DayLock),
    path: &Path,
    journal: &Journal,
) -> Result<Published, PublishError> {
    let fence = || lock.fence().map_err(PublishError::Overtaken);
    // What was in the way of a run that was overtaken is the work of the other.
    let half_done = |error| match lock.fence() {
        Ok(()) => PublishError::HalfDone { error },
        Err(lost) => PublishError::Overtaken(lost),
    };
    let Journal { run, switches, .. } = journal;
    let expected = journal.swaps.iter();
    let expected: Vec<_> = expected
        .map(|swap| (name(swap), swap.staged.clone(), swap.target.clone()))
        .collect();
    store.expect(key, &expected).map_err(half_done)?;
    let mut absent = Duration::ZERO;
    for (index, swap) in journal.swaps.iter().enumerate() {
        fence()?;
        absent = absent.max(finish_swap(store, swap).map_err(half_done)?);
        fail::point(&format!("after folder {index}"));
    }
    fence()?;
    adopt(store, &journal.adoptions).map_err(half_done)?;
    let places = versions::switch(store, (key, run), (path, switches)).map_err(half_done)?;
    fence()?;
    fail::point("before the catalog");
    let folders = folders(journal);
    let tell = |run: &str, places: &Places| {
        store.tell(&Publication {
            key,
            run,
            folders: &folders,
            places,
        })
    };
    tell(run, &places).map_err(half_done)?;
    if !switches.is_empty()
        && let Err(lost) = lock.fence()
    {
        // Told too late, after another run: what holds is told once more.
        let now = Places::read(store, key).map_err(half_done)?;
        tell(now.run(), &now).map_err(half_done)?;
        return Err(PublishError::Overtaken(lost));
    }
    fail::point("after the catalog");
    versions::leave(store, switches).map_err(half_done)?;
    for Switch { target, .. } in switches {
        // It has nothing else.
        let made = store.files().make_folder(target);
        made.map_err(store.at(target)).map_err(half_done)?;
    }
    for (_, target) in &folders {
        put_success(store, target).map_err(half_done)?;
    }
    fail::point("after _SUCCESS");
    store.record(key, &journal.finished()).map_err(half_done)?;
    fail::point("after the record");
    let removed = store.files().remove(path).map_err(store.at(path));
    removed.map_err(half_done)?;
    fail::point("after the journal is removed");
    Ok(Published { places, absent })
}

fn adopt(store: &Store, adoptions: &[Adoption]) -> Result<(), StoreError> {
    for Adoption {
        target, manifest, ..
    } in adoptions
    {
        let path = target.join(Manifest::NAME);
        let put = store.files().put(&path, manifest.as_bytes());
        put.map_err(store.at(&path))?;
    }
    Ok(())
}

/// Names and targets of everything that a journal names.
fn folders(journal: &Journal) -> Vec<(String, PathBuf)> {
    let swaps = journal.swaps.iter();
    let swaps = swaps.map(|swap| (name(swap), swap.target.clone()));
    let switches = journal.switches.iter();
    let switches = switches.map(|switch| (switch.name.clone(), switch.target.clone()));
    let adoptions = journal.adoptions.iter();
    let adoptions = adoptions.map(|adoption| (adoption.name.clone(), adoption.target.clone()));
    swaps.chain(switches).chain(adoptions).collect()
}

fn put_success(store: &Store, target: &Path) -> Result<(), StoreError> {
    let (files, success) = (store.files(), target.join(SUCCESS));
    let found = files.status(&success).map_err(store.at(&success))?;
    if found.is_none() && files.status(target).map_err(store.at(target))?.is_some() {
        files.put(&success, b"").map_err(store.at(&success))?;
    }
    Ok(())
}

/// From any state to: the new one in its place, the old one in the trash. Returns how long nothing was in its place.
fn finish_swap(store: &Store, swap: &Swap) -> Result<Duration, StoreError> {
    let files = store.files();
    let Swap {
        staged,
        target,
        old,
        id,
        ..
    } = swap;
    let look = |path: &PathBuf| files.status(path).map_err(store.at(path));
    let Some(found) = look(staged)? else {
        // Its name was changed already. Where it is gone all the same, the old one is better than none.
        if look(target)?.is_none() && look(old)?.is_some() {
            files.rename(old, target).map_err(store.at(target))?;
        }
        return Ok(Duration::ZERO);
    };
    // Two folders that changed places: what is staged is the old one.
    if id.is_some() && *id != found.id {
        to_trash(store, staged, old)?;
        return Ok(Duration::ZERO);
    }
    if look(target)?.is_none() {
        files.rename(staged, target).map_err(store.at(target))?;
        return Ok(Duration::ZERO);
    }
    if files.exchange(staged, target).map_err(store.at(target))? {
        fail::point(&format!("after the exchange of {}", name(swap)));
        to_trash(store, staged, old)?;
        return Ok(Duration::ZERO);
    }
    let left = to_trash(store, target, old)?;
    fail::point(&format!("between the renames of {}", name(swap)));
    files.rename(staged, target).map_err(store.at(target))?;
    Ok(left.elapsed())
}

/// The name under which a folder was staged.
fn name(swap: &Swap) -> String {
    let name = swap.old.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns when the folder was there for certain for the last time.
fn to_trash(store: &Store, folder: &Path, old: &Path) -> Result<Instant, StoreError> {
    let files = store.files();
    let parent = old.parent().unwrap_or(old);
    files.make_folder(parent).map_err(store.at(parent))?;
    fail::point("before a folder goes to the trash");
    let still_there = Instant::now();
    files.rename(folder, old).map_err(store.at(old))?;
    Ok(still_there)
}
