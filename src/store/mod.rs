//! Every file that comes from or goes to the warehouse: raw files, locks, staging, publishing, history.
//!
//! ```text
//! lock the day ─► clear what a killed run left ─► stage under .klieg/runs ─► verify ─► one atomic exchange a folder ─► history
//! ```
//! Readers see the old folder or the new one. A run that is killed before the exchange leaves only its staging folder, which the
//! next run of the day removes; killed between two exchanges, it leaves folders whose manifests disagree, and the next run
//! makes the missing ones again.

pub mod landing;
mod lock;
mod manifest;
mod publish;

use std::io;
use std::path::Path;
use std::path::PathBuf;

pub use lock::DayLock;
pub use lock::LockError;
pub use lock::held_locks;
pub use manifest::Manifest;
pub use manifest::fingerprint;
pub use publish::Staging;
pub use publish::StoreError;
pub use publish::remove_staging;
pub use publish::stop_publishing;

/// Looks at a folder that must be there.
///
/// # Errors
/// It is missing, no folder, or not for this user.
pub fn check_folder(folder: &Path) -> Result<(), StoreError> {
    let metadata = std::fs::metadata(folder).map_err(StoreError::at(folder))?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(StoreError::at(folder)(io::ErrorKind::NotADirectory.into()))
}

/// Returns what is in a folder, by path; nothing where it is missing.
///
/// # Errors
/// What the file system says.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
