//! Where the outputs of a run lie until they are published.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::parallel;
use crate::store::AT_ONCE;
use crate::store::DayLock;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::PublishError;
use crate::store::Published;
use crate::store::Store;
use crate::store::fail;
use crate::store::fingerprint;
use crate::store::journal;
use crate::store::journal::Adoption;
use crate::store::journal::Moves;
use crate::store::journal::Swap;
use crate::store::versions;
use crate::store::versions::Switch;

/// Something of the work area or of a published folder.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct StoreError {
    /// The file or folder.
    pub path: String,
    /// What the file system says.
    #[source]
    pub error: io::Error,
}

/// The staging folder of a run of one day; removed when it is dropped. Files are made in a folder of this machine; on HDFS they go
/// from there to the staging folder of the warehouse.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    key: String,
    run: String,
    folder: PathBuf,
    spool: PathBuf,
}

/// Held while folders are published and while the process stops, so that no signal comes between.
static PUBLISHING: Mutex<()> = Mutex::new(());

impl Staging {
    /// Makes `<work area>/runs/<key>/<run>` and removes what killed runs of the same key left; the caller holds the day's lock.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create(store: &Store, key: &str, run: &str) -> Result<Self, StoreError> {
        let parent = store.work_area().join("runs").join(key);
        store.files().remove(&parent).map_err(store.at(&parent))?;
        let folder = parent.join(run);
        store
            .files()
            .make_folder(&folder)
            .map_err(store.at(&folder))?;
        let spool = match store.is_local() {
            true => folder.clone(),
            false => spool(store, key, run)?,
        };
        fail::point("after staging is made");
        Ok(Self {
            store: store.clone(),
            key: key.to_owned(),
            run: run.to_owned(),
            folder,
            spool,
        })
    }

    /// Returns the folder of this machine in which `name` is made.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StoreError> {
        let folder = self.spool.join(name);
        std::fs::create_dir_all(&folder).map_err(local(&folder))?;
        Ok(folder)
    }

    /// Returns the folder of the warehouse in which `name` is staged.
    #[must_use]
    pub fn staged(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns where a try makes `name`: in a folder of this machine, and from there in one of the warehouse. What other tries leave, or
    /// write late, lies apart.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn begin_try(&self, name: &str, number: u32) -> Result<(PathBuf, PathBuf), StoreError> {
        let name = try_name(name, number);
        Ok((self.folder(&name)?, self.staged(&name)))
    }

    /// Takes what a try has made as `name`.
    ///
    /// # Errors
    /// The file system.
    pub fn take_try(&self, name: &str, number: u32) -> Result<(), StoreError> {
        let store = &self.store;
        let (made, staged) = (self.staged(&try_name(name, number)), self.staged(name));
        store.files().make_folder(&made).map_err(store.at(&made))?;
        let renamed = store.files().rename(&made, &staged);
        renamed.map_err(store.at(&staged))
    }

    /// Stages what is still on this machine, writes manifests, then puts each staged folder in the place of its target.
    ///
    /// # Errors
    /// Where it says so, the next run or `recover` finishes the publication; otherwise nothing was changed.
    pub fn publish(
        &self,
        lock: &DayLock,
        folders: &[(&str, &Path, Manifest)],
    ) -> Result<Published, PublishError> {
        let store = &self.store;
        let who = (self.key.as_str(), self.run.as_str());
        versions::check(store, &self.key)?;
        let mut moves = Moves::default();
        let complete =
            |(name, _, manifest): &(&str, &Path, Manifest)| self.complete(name, manifest);
        let completed = parallel::map(AT_ONCE, folders, complete);
        completed.into_iter().collect::<Result<(), _>>()?;
        for (name, target, _) in folders {
            let folders = (self.staged(name), target.to_path_buf());
            if store.is_versioned(target) {
                let places = Places::read(store, &self.key)?;
                let switch = Switch::publish(store, who, name, folders, &places)?;
                moves.switches.push(switch);
            } else {
                moves.swaps.push(Swap::plan(store, who, name, folders)?);
            }
        }
        fail::point("after staging");
        let _guard = PUBLISHING.lock().unwrap_or_else(PoisonError::into_inner);
        journal::publish(store, who, lock, moves)
    }

    /// Takes a folder of another tool as it is, with a manifest of ours.
    ///
    /// # Errors
    /// Where it says so, the next run or `recover` finishes it; otherwise nothing was changed.
    pub fn adopt(
        &self,
        lock: &DayLock,
        (name, target): (&str, &Path),
        manifest: &Manifest,
    ) -> Result<(), PublishError> {
        let store = &self.store;
        let text = serde_json::to_string_pretty(manifest);
        let adoption = Adoption {
            name: name.to_owned(),
            target: target.to_path_buf(),
            manifest: text.map_err(|error| store.at(target)(error.into()))?,
        };
        let moves = Moves {
            adoptions: vec![adoption],
            ..Moves::default()
        };
        let _guard = PUBLISHING.lock().unwrap_or_else(PoisonError::into_inner);
        journal::publish(store, (&self.key, &self.run), lock, moves)?;
        Ok(())
    }

    fn complete(&self, name: &str, manifest: &Manifest) -> Result<(), StoreError> {
        let store = &self.store;
        let staged = self.staged(name);
        if !store.is_local() {
            upload_all(store, &self.spool.join(name), &staged)?;
        }
        let file = staged.join(Manifest::NAME);
        let text =
            serde_json::to_vec_pretty(manifest).map_err(|error| store.at(&file)(error.into()))?;
        store.files().put(&file, &text).map_err(store.at(&file))
    }
}

fn try_name(name: &str, number: u32) -> String {
    format!("{name}.try{number}")
}

fn local(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError {
        path: path.display().to_string(),
        error,
    }
}

/// Makes the folder of this machine for a run of a key of this warehouse; those of other runs of the key are of killed ones, or of one
/// that has lost its lock.
fn spool(store: &Store, key: &str, run: &str) -> Result<PathBuf, StoreError> {
    let warehouse = fingerprint(std::iter::once(store.url(store.root()).as_str()));
    let parent = store.work_dir().join(format!("{warehouse}-{key}"));
    match std::fs::remove_dir_all(&parent) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(local(&parent)(error)),
        _ => {}
    }
    let spool = parent.join(run);
    std::fs::create_dir_all(&spool).map_err(local(&spool))?;
    Ok(spool)
}

/// Copies files and folders of this machine to a folder of the warehouse.
fn upload_all(store: &Store, from: &Path, to: &Path) -> Result<(), StoreError> {
    let files = store.files();
    files.make_folder(to).map_err(store.at(to))?;
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(local(from))?,
    };
    for entry in entries {
        let entry = entry.map_err(local(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            upload_all(store, &path, &target)?;
        } else {
            files.upload(&path, &target).map_err(store.at(&target))?;
        }
    }
    Ok(())
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next run of the day tries again. What lies beside it may be of a run that has the lock now.
        drop(std::fs::remove_dir_all(&self.spool));
        drop(self.store.files().remove(&self.folder));
        if let Some(parent) = self.spool.parent().filter(|_| !self.store.is_local()) {
            // Fails where another run is at work.
            drop(std::fs::remove_dir(parent));
        }
    }
}

/// Waits for a publication that is under way and keeps new ones from starting; for a process that stops.
pub fn stop_publishing() {
    std::mem::forget(PUBLISHING.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Removes what `run` staged, for a process that stops.
pub fn remove_staging(store: &Store, run: &str) {
    let keys = store.list(&store.work_area().join("runs"));
    for key in keys.into_iter().flatten() {
        // The next run of the day tries again.
        drop(store.files().remove(&key.path.join(run)));
    }
}
