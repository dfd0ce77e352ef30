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
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(fail(error)),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.take(4096).read_to_string(&mut owner).map_err(fail)?;
                return Err(LockError::Held {
                    path: path.display().to_string(),
                    owner,
                });
            }
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        file.write_all(owner.as_bytes()).map_err(fail)?;
        Ok(Self { _file: file })
    }
}
