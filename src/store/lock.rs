//! One run a day of a pipeline: a lock of the operating system, which a killed process cannot leave behind.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::store;

/// Why a day cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run has it.
    #[error("{path}: locked by a live run ({owner}); wait for it to end, or stop it")]
    Held {
        /// The lock file.
        path: String,
        /// What that run wrote about itself.
        owner: String,
    },
    /// The file system.
    #[error("{path}: {error}")]
    Io {
        /// The lock file.
        path: String,
        /// What it says.
        #[source]
        error: io::Error,
    },
}

/// Held until it is dropped.
#[derive(Debug)]
pub struct DayLock {
    _file: File,
}

impl DayLock {
    /// Locks `<work_area>/locks/<key>`; `owner` is shown to whoever comes while it is held.
    ///
    /// # Errors
    /// A live run has the lock, or the file cannot be made.
    pub fn take(work_area: &Path, key: &str, owner: &str) -> Result<Self, LockError> {
        let path: PathBuf = work_area.join("locks").join(key);
        let fail = |error| LockError::Io {
            path: path.display().to_string(),
            error,
        };
        std::fs::create_dir_all(work_area.join("locks")).map_err(fail)?;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.map_err(fail)?;
        if !try_lock(&file).map_err(fail)? {
            return Err(LockError::Held {
                path: path.display().to_string(),
                owner: read_owner(file).map_err(fail)?,
            });
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        file.write_all(owner.as_bytes()).map_err(fail)?;
        Ok(Self { _file: file })
    }
}

/// Whoever only looks whether a lock is held has it for an instant: a run tries again.
fn try_lock(file: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => std::thread::sleep(TRY_AGAIN),
        }
    }
    Ok(false)
}

const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The most bytes of what an owner writes about itself.
const OWNER_BYTES: u64 = 4096;

fn read_owner(file: File) -> io::Result<String> {
    let mut owner = String::new();
    file.take(OWNER_BYTES).read_to_string(&mut owner)?;
    Ok(owner)
}

/// Returns key and owner of each lock that a live run holds, by key; needs read rights only.
///
/// # Errors
/// A folder or file that cannot be read, with its path.
pub fn held_locks(work_area: &Path) -> Result<Vec<(String, String)>, LockError> {
    let folder = work_area.join("locks");
    let fail_at = |path: &Path, error| LockError::Io {
        path: path.display().to_string(),
        error,
    };
    let mut held = Vec::new();
    for path in store::list(&folder).map_err(|error| fail_at(&folder, error))? {
        let fail = |error| fail_at(&path, error);
        let file = File::open(&path).map_err(fail)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(fail(error)),
            Err(TryLockError::WouldBlock) => {
                let key = path.file_name().unwrap_or_default();
                let owner = read_owner(file).map_err(fail)?;
                held.push((key.to_string_lossy().into_owned(), owner));
            }
        }
    }
    Ok(held)
}
