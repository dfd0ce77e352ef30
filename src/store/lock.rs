//! One run a day of a pipeline. On `file://` a lock of the operating system, which a killed process cannot leave behind.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::store::Store;
use crate::store::StoreError;
use crate::store::files::Held;

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
    /// Another run has, or may have, taken it meanwhile.
    #[error("{path}: the lock was lost ({error})")]
    Lost {
        /// The lock file.
        path: String,
        /// What the file system says.
        #[source]
        error: io::Error,
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

/// A lock of the operating system; gone with its process.
#[derive(Debug)]
pub(super) struct OsLock {
    _file: File,
}

impl OsLock {
    pub(super) fn take(path: &Path, owner: &str) -> Result<Self, LockError> {
        let fail = |error| LockError::Io {
            path: path.display().to_string(),
            error,
        };
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
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

    pub(super) fn holder(path: &Path) -> io::Result<Option<String>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => Ok(Some(read_owner(file)?)),
        }
    }
}

impl Held for OsLock {
    /// The operating system keeps it as long as the process lives.
    fn fence(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The lock of a day; held until it is dropped.
#[derive(Debug)]
pub struct DayLock {
    path: String,
    held: Box<dyn Held>,
}

impl DayLock {
    /// Locks `<work area>/locks/<key>`; `owner` is shown to whoever comes while it is held.
    ///
    /// # Errors
    /// A live run has the lock, or the file cannot be made.
    pub fn take(store: &Store, key: &str, owner: &str) -> Result<Self, LockError> {
        let folder = store.work_area().join("locks");
        let fail = |error| LockError::Io {
            path: store.url(&folder),
            error,
        };
        store.files().make_folder(&folder).map_err(fail)?;
        let path = folder.join(key);
        Ok(Self {
            held: store.files().lock(&path, owner)?,
            path: store.url(&path),
        })
    }

    /// Makes sure that the lock is still ours.
    ///
    /// # Errors
    /// It is not, or nobody knows.
    pub fn fence(&self) -> Result<(), LockError> {
        self.held.fence().map_err(|error| LockError::Lost {
            path: self.path.clone(),
            error,
        })
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

/// Takes a lock from its owner; false where it ends with its process.
///
/// # Errors
/// There is no such lock, or the file system.
pub fn break_lock(store: &Store, key: &str) -> Result<bool, StoreError> {
    let path = store.work_area().join("locks").join(key);
    store.files().break_lock(&path).map_err(store.at(&path))
}

/// Returns key and owner of each lock that a live run holds, by key; needs read rights only.
///
/// # Errors
/// A folder or file that cannot be read, with its path.
pub fn held_locks(store: &Store) -> Result<Vec<(String, String)>, LockError> {
    let folder = store.work_area().join("locks");
    let fail_at = |path: &Path, error| LockError::Io {
        path: store.url(path),
        error,
    };
    let mut held = Vec::new();
    let entries = store
        .list(&folder)
        .map_err(|error| fail_at(&folder, error))?;
    for entry in entries {
        let owner = store.files().holder(&entry.path);
        let owner = owner.map_err(|error| fail_at(&entry.path, error))?;
        held.extend(owner.map(|owner| (entry.name(), owner)));
    }
    Ok(held)
}
