//! Staging and the exchange that publishes it.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::fs::renameat_with;

use crate::store::Manifest;

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

impl StoreError {
    /// Says where an error came up.
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self {
            path: path.display().to_string(),
            error,
        }
    }
}

/// The staging folder of a run of one day; removed when it is dropped.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
}

/// Held while a folder is exchanged and while the process stops, so that no signal comes between.
static PUBLISHING: Mutex<()> = Mutex::new(());

impl Staging {
    /// Makes `<work_area>/runs/<key>/<run>` and removes what killed runs of the same key left; the caller holds the day's lock.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create(work_area: &Path, key: &str, run: &str) -> Result<Self, StoreError> {
        let parent = work_area.join("runs").join(key);
        if parent.try_exists().map_err(StoreError::at(&parent))? {
            std::fs::remove_dir_all(&parent).map_err(StoreError::at(&parent))?;
        }
        let folder = parent.join(run);
        std::fs::create_dir_all(&folder).map_err(StoreError::at(&folder))?;
        Ok(Self { folder })
    }

    /// Returns the folder in which `name` is staged, and makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StoreError> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).map_err(StoreError::at(&folder))?;
        Ok(folder)
    }

    /// Writes manifests and `_SUCCESS`, then puts each staged folder in the place of its target. All of them or none: what fails
    /// in between is taken back, and no signal comes between.
    ///
    /// # Errors
    /// The file system; what was published before is then still there.
    pub fn publish(&self, folders: &[(&str, &Path, Manifest)]) -> Result<(), StoreError> {
        for (name, target, manifest) in folders {
            self.complete(name, manifest)?;
            let parent = target.parent().unwrap_or(target);
            std::fs::create_dir_all(parent).map_err(StoreError::at(parent))?;
        }
        let _guard = PUBLISHING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (index, (name, target, _)) in folders.iter().enumerate() {
            if let Err(error) = exchange(&self.folder.join(name), target) {
                for (name, target, _) in folders.iter().take(index).rev() {
                    // The first error is the one to tell.
                    drop(exchange(&self.folder.join(name), target));
                }
                return Err(error);
            }
        }
        for (_, target, _) in folders {
            let parent = target.parent().unwrap_or(target);
            sync_folder(parent).map_err(StoreError::at(parent))?;
        }
        Ok(())
    }

    fn complete(&self, name: &str, manifest: &Manifest) -> Result<(), StoreError> {
        let staged = self.folder.join(name);
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|error| StoreError::at(&staged)(error.into()))?;
        let file = staged.join(Manifest::NAME);
        write_synced(&file, text.as_bytes()).map_err(StoreError::at(&file))?;
        let success = staged.join("_SUCCESS");
        write_synced(&success, b"").map_err(StoreError::at(&success))
    }
}

/// Lets two folders change places; where one is missing, the other goes there.
fn exchange(staged: &Path, target: &Path) -> Result<(), StoreError> {
    let is_there = |path: &Path| path.try_exists().map_err(StoreError::at(path));
    match (is_there(staged)?, is_there(target)?) {
        (true, true) => renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE)
            .map_err(|error| StoreError::at(target)(error.into())),
        (true, false) => std::fs::rename(staged, target).map_err(StoreError::at(target)),
        (false, _) => std::fs::rename(target, staged).map_err(StoreError::at(staged)),
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next run of the day tries again.
        drop(std::fs::remove_dir_all(&self.folder));
        if let Some(parent) = self.folder.parent() {
            drop(std::fs::remove_dir(parent));
        }
    }
}

/// Waits for an exchange that is under way and keeps new ones from starting; for a process that stops.
pub fn stop_publishing() {
    std::mem::forget(
        PUBLISHING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
}

/// Removes what `run` staged, for a process that stops.
pub fn remove_staging(work_area: &Path, run: &str) {
    let folders = std::fs::read_dir(work_area.join("runs"));
    for folder in folders.into_iter().flatten().flatten() {
        // The next run of the day tries again.
        drop(std::fs::remove_dir_all(folder.path().join(run)));
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}
