//! Where partitions lie under `layout: versioned`: each publication in a folder of its own, to which the metastore is switched.
//!
//! ```text
//! versions/<key>/<run>.<name>/…           the content of one publication; never changed
//! versions/empty/                         where partitions without rows lie
//! .klieg/versions/<key>/<number>.json     where each partition of the key lies, and what it was before; the highest number holds
//! ```
//! Readers who go by the metastore see the old folder or the new one and never a hole; who reads the old one goes on doing so until
//! it is older than `keep`. A number is taken by a rename that fails where another run has taken it, so that a run that was frozen
//! and wakes up never puts an old state in the place of a new one. Only folders of partitions (`d=8`, `h=7`) are versioned: results
//! that are read by path (text, models) change places as in the canonical layout.
//!
//! A warehouse may change from the canonical layout to this one: what lies in a partition's own folder goes to the trash when its
//! first version is published. It does not change back.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use crate::store::DayLock;
use crate::store::LockError;
use crate::store::PublishError;
use crate::store::SUCCESS;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::fail;
use crate::store::trash;

/// States of a key that are kept for readers who have just looked which is the last.
const STATES_KEPT: usize = 3;
/// Looks at the states of a key while others are written.
const LOOKS_MAX: usize = 5;

/// Partitions and the folders in which they lie; what is below a partition lies below its folder unless it has one of its own.
pub(super) type Folders = BTreeMap<PathBuf, PathBuf>;

/// Where the partitions of a key lie.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Places {
    #[serde(skip)]
    number: u64,
    /// The run that made this state.
    run: String,
    folders: Folders,
    replaced: Vec<Former>,
}

/// What a publication replaced.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Former {
    /// The run that replaced it.
    pub(super) by: String,
    /// When, nanoseconds since 1970.
    at_ns: u64,
    /// Name under which the new one was staged.
    pub(super) name: String,
    /// Where the partition and those below it lay; empty where it lay in the folder of the one above.
    pub(super) folders: Folders,
}

/// What a publication does with a partition.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Switch {
    /// Name under which it was staged.
    pub(super) name: String,
    /// The partition's own folder, which names it.
    pub(super) target: PathBuf,
    /// A folder that goes to where the partition is to lie.
    staged: Option<PathBuf>,
    /// Where the partition and those below it are to lie; empty for its own folder, or that of the one above.
    folders: Folders,
    /// Where what lies in the partition's own folder goes.
    old: Option<PathBuf>,
}

/// Makes sure that nothing of a key is versioned where the layout is canonical.
pub(super) fn check(store: &Store, key: &str) -> Result<(), PublishError> {
    if store.versioned || Places::read(store, key)?.is_empty() {
        return Ok(());
    }
    let path = store.url(&states(store).join(key));
    Err(PublishError::Layout { path })
}

/// True for folders that are versioned.
pub(super) fn is_partition(target: &Path) -> bool {
    let name = target.file_name().unwrap_or_default();
    name.to_string_lossy().contains('=')
}

/// Where partitions without rows lie.
pub(super) fn empty(store: &Store) -> PathBuf {
    data(store).join("empty")
}

fn data(store: &Store) -> PathBuf {
    store.root().join("versions")
}

fn states(store: &Store) -> PathBuf {
    store.work_area().join("versions")
}

impl Places {
    /// Reads where the partitions of a key lie.
    ///
    /// # Errors
    /// The file system, or a state that cannot be understood.
    pub fn read(store: &Store, key: &str) -> Result<Self, StoreError> {
        let folder = states(store).join(key);
        for _ in 0..LOOKS_MAX {
            let entries = store.list(&folder).map_err(store.at(&folder))?;
            let numbers = entries.iter().filter_map(|entry| number(&entry.path));
            let Some(number) = numbers.max() else {
                return Ok(Self::default());
            };
            let path = state(&folder, number);
            // Gone where others have written several states meanwhile.
            if let Some(text) = store.read(&path).map_err(store.at(&path))? {
                let places = serde_json::from_slice::<Self>(&text);
                let places = places.map_err(|error| store.at(&path)(error.into()))?;
                return Ok(Self { number, ..places });
            }
        }
        Err(store.at(&folder)(io::ErrorKind::ResourceBusy.into()))
    }

    /// Returns where a partition, or something in it, lies.
    #[must_use]
    pub fn of(&self, path: &Path) -> PathBuf {
        let above = path.ancestors().find_map(|above| {
            let folder = self.folders.get(above)?;
            Some((folder, path.strip_prefix(above).ok()?))
        });
        match above {
            Some((folder, rest)) if rest.as_os_str().is_empty() => folder.clone(),
            Some((folder, rest)) => folder.join(rest),
            None => path.to_path_buf(),
        }
    }

    /// True where a partition has a folder of its own.
    #[must_use]
    pub fn names(&self, target: &Path) -> bool {
        self.folders.contains_key(target)
    }

    /// Returns the run that made this state.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    pub(super) fn replaced(&self) -> &[Former] {
        &self.replaced
    }

    /// Where a partition and those below it lie.
    fn below(&self, target: &Path) -> Folders {
        let folders = self.folders.iter();
        let below = folders.filter(|(path, _)| path.starts_with(target));
        below
            .map(|(path, folder)| (path.clone(), folder.clone()))
            .collect()
    }

    /// Changes the state as `run` does; false where it has done so before.
    fn switch(&mut self, (run, at_ns): (&str, u64), switches: &[Switch]) -> bool {
        if self.run == run && switches.iter().all(|switch| self.has(switch)) {
            return false;
        }
        for Switch {
            name,
            target,
            folders,
            old,
            ..
        } in switches
        {
            let before = self.below(target);
            self.folders.retain(|path, _| !path.starts_with(target));
            self.folders.extend(folders.clone());
            // What lies in the partition's own folder is kept in the trash.
            if old.is_none() {
                self.replaced.push(Former {
                    by: run.to_owned(),
                    at_ns,
                    name: name.clone(),
                    folders: before,
                });
            }
        }
        run.clone_into(&mut self.run);
        true
    }

    fn has(&self, switch: &Switch) -> bool {
        self.below(&switch.target) == switch.folders
    }

    /// Writes the next state.
    fn write(&self, store: &Store, key: &str) -> Result<(), StoreError> {
        let (files, folder) = (store.files(), states(store).join(key));
        files.make_folder(&folder).map_err(store.at(&folder))?;
        let next = state(&folder, self.number + 1);
        let draft = folder.join(format!("{}.draft", self.run));
        let text = serde_json::to_vec_pretty(self);
        let text = text.map_err(|error| store.at(&next)(error.into()))?;
        files.put(&draft, &text).map_err(store.at(&draft))?;
        files.rename(&draft, &next).map_err(store.at(&next))?;
        let mut numbers: Vec<_> = store
            .list(&folder)
            .map_err(store.at(&folder))?
            .iter()
            .filter_map(|entry| number(&entry.path))
            .collect();
        numbers.sort_unstable();
        let old = numbers.len().saturating_sub(STATES_KEPT);
        for number in &numbers[..old] {
            let path = state(&folder, *number);
            files.remove(&path).map_err(store.at(&path))?;
        }
        Ok(())
    }
}

fn state(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.json"))
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".json")?.parse().ok()
}

impl Switch {
    /// Plans the publication of a staged folder.
    ///
    /// # Errors
    /// The partition's own folder cannot be looked at.
    pub(super) fn publish(
        store: &Store,
        (key, run): (&str, &str),
        name: &str,
        (staged, target): (PathBuf, PathBuf),
        places: &Places,
    ) -> Result<Self, StoreError> {
        let is_new = places.of(&target) == target && places.below(&target).is_empty();
        let entries = store.list(&target).map_err(store.at(&target))?;
        let is_full = entries.iter().any(|entry| entry.name() != SUCCESS);
        let folder = data(store).join(key).join(format!("{run}.{name}"));
        Ok(Self {
            name: name.to_owned(),
            old: (is_new && is_full).then(|| trash::folder(store).join(run).join(key).join(name)),
            folders: Folders::from([(target.clone(), folder)]),
            staged: Some(staged),
            target,
        })
    }

    /// True where what was staged is neither there nor where it goes.
    pub(super) fn is_void(&self, store: &Store) -> Result<bool, StoreError> {
        let Some(staged) = &self.staged else {
            return Ok(false);
        };
        let folder = self.folders.get(&self.target).unwrap_or(&self.target);
        let look = |path: &PathBuf| store.files().status(path).map_err(store.at(path));
        Ok(look(staged)?.is_none() && look(folder)?.is_none())
    }

    /// Plans the return to what was before.
    pub(super) fn back(name: &str, target: PathBuf, folders: Folders) -> Self {
        Self {
            name: name.to_owned(),
            target,
            staged: None,
            folders,
            old: None,
        }
    }

    /// Plans the return of a folder of the trash to the partition's own.
    pub(super) fn back_home(name: &str, target: PathBuf, kept: PathBuf) -> Self {
        Self {
            staged: Some(kept),
            ..Self::back(name, target, Folders::new())
        }
    }

    /// Moves the staged folder to where the partition is to lie.
    fn move_staged(&self, store: &Store, (key, run): (&str, &str)) -> Result<(), StoreError> {
        let files = store.files();
        let Some(staged) = &self.staged else {
            return Ok(());
        };
        if files.status(staged).map_err(store.at(staged))?.is_none() {
            return Ok(());
        }
        let folder = self.folders.get(&self.target).unwrap_or(&self.target);
        let parent = folder.parent().unwrap_or(folder);
        files.make_folder(parent).map_err(store.at(parent))?;
        if *folder == self.target && files.status(folder).map_err(store.at(folder))?.is_some() {
            // Flags for schedulers are all that it has.
            let flags = trash::folder(store).join(run).join(format!("{key}.flags"));
            files.make_folder(&flags).map_err(store.at(&flags))?;
            let flags = flags.join(&self.name);
            files.rename(folder, &flags).map_err(store.at(folder))?;
        }
        files.rename(staged, folder).map_err(store.at(folder))
    }

    /// Takes what lies in the partition's own folder to the trash.
    fn move_old(&self, store: &Store) -> Result<(), StoreError> {
        let files = store.files();
        let Some(old) = &self.old else {
            return Ok(());
        };
        if files.status(old).map_err(store.at(old))?.is_some() {
            return Ok(());
        }
        let parent = old.parent().unwrap_or(old);
        files.make_folder(parent).map_err(store.at(parent))?;
        files
            .rename(&self.target, old)
            .map_err(store.at(&self.target))
    }
}

/// Moves staged folders and makes the state in which partitions lie there; from any state in which a killed run left it. `journal` is what
/// tells when.
pub(super) fn switch(
    store: &Store,
    (key, run): (&str, &str),
    (journal, switches): (&Path, &[Switch]),
) -> Result<Places, StoreError> {
    if switches.is_empty() {
        return Ok(Places::default());
    }
    let empty = empty(store);
    store
        .files()
        .make_folder(&empty)
        .map_err(store.at(&empty))?;
    for switch in switches {
        switch.move_staged(store, (key, run))?;
        fail::point(&format!("after the version of {}", switch.name));
    }
    let mut places = Places::read(store, key)?;
    let journal = store.files().status(journal).map_err(store.at(journal))?;
    let at_ns = journal.map_or(0, |entry| entry.modified_ns);
    if places.switch((run, at_ns), switches) {
        places.write(store, key)?;
    }
    fail::point("after the state of versions");
    Ok(places)
}

/// Takes what lay in partitions' own folders to the trash, when nobody is sent there any more.
pub(super) fn leave(store: &Store, switches: &[Switch]) -> Result<(), StoreError> {
    switches
        .iter()
        .try_for_each(|switch| switch.move_old(store))
}

/// Forgets what was replaced longer than `keep` ago and removes folders in which nothing lies; returns the runs that had replaced
/// it. Keys that a live run has are left alone.
pub(super) fn clear(
    store: &Store,
    keep: Duration,
    now: SystemTime,
) -> Result<BTreeSet<String>, StoreError> {
    let folder = states(store);
    let mut cleared = BTreeSet::new();
    for entry in store.list(&folder).map_err(store.at(&folder))? {
        let key = entry.name();
        let is_old = |former: &Former| trash::is_older(former.at_ns, keep, now);
        if !Places::read(store, &key)?.replaced.iter().any(is_old) {
            continue;
        }
        let Some(_lock) = try_lock(store, &key)? else {
            continue;
        };
        // What a killed run has moved is in no state yet.
        if store.is_half_published(&key)? {
            continue;
        }
        let mut places = Places::read(store, &key)?;
        let (old, kept): (Vec<_>, Vec<_>) = places.replaced.into_iter().partition(is_old);
        places.replaced = kept;
        places.write(store, &key)?;
        remove_unused(store, &key, &places)?;
        cleared.extend(old.into_iter().map(|former| former.by));
    }
    Ok(cleared)
}

fn try_lock(store: &Store, key: &str) -> Result<Option<DayLock>, StoreError> {
    match DayLock::take(store, key, "gc") {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { .. }) => Ok(None),
        Err(LockError::Lost { path, error } | LockError::Io { path, error }) => {
            Err(StoreError { path, error })
        }
    }
}

fn remove_unused(store: &Store, key: &str, places: &Places) -> Result<(), StoreError> {
    let former = places.replaced.iter().map(|former| &former.folders);
    let folders = former.chain(std::iter::once(&places.folders));
    let used: BTreeSet<&PathBuf> = folders.flat_map(BTreeMap::values).collect();
    let folder = data(store).join(key);
    for entry in store.list(&folder).map_err(store.at(&folder))? {
        if !used.contains(&entry.path) {
            let path = &entry.path;
            store.files().remove(path).map_err(store.at(path))?;
        }
    }
    Ok(())
}
