//! A folder of one process below `work_dir`, which others may use too, be it from containers that do not see each other's processes: a
//! lock says whose it is, and that of a process that was killed is free.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

const LOCK: &str = "lock";

/// Removed when it is dropped.
#[derive(Debug)]
pub struct OwnFolder {
    path: PathBuf,
    lock: File,
}

impl OwnFolder {
    /// Makes an empty folder below `work_dir`, and removes those of processes that are gone.
    ///
    /// # Errors
    /// `work_dir` cannot be written to, or its file system has no locks.
    pub fn take(work_dir: &Path) -> io::Result<Self> {
        let all = work_dir.join("workers");
        let at =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", all.display()));
        std::fs::create_dir_all(&all).map_err(at)?;
        sweep(&all).map_err(at)?;
        let mut number = 0;
        loop {
            let name = format!("{}-{number}", std::process::id());
            if let Some(own) = Self::try_take(all.join(name)).map_err(at)? {
                return Ok(own);
            }
            number += 1;
        }
    }

    fn try_take(path: PathBuf) -> io::Result<Option<Self>> {
        let file = path.with_extension(LOCK);
        let lock = match File::create_new(&file) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            lock => lock?,
        };
        // Another may have taken it for one that was left, and removed it.
        if !is_locked(&lock)? || !is_same(&lock, &file)? {
            return Ok(None);
        }
        // Shuffles, and what is spilled, say which address did what.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Some(Self { path, lock }))
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        drop(remove(&self.path));
        drop(self.lock.unlock());
    }
}

/// Locks a file, where nobody else has.
fn is_locked(lock: &File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_same(lock: &File, file: &Path) -> io::Result<bool> {
    let own = lock.metadata()?;
    match std::fs::metadata(file) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a folder, then its lock.
fn remove(folder: &Path) -> io::Result<()> {
    let lock = folder.with_extension(LOCK);
    for removed in [std::fs::remove_dir_all(folder), std::fs::remove_file(lock)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what nobody holds; what another user has left stays.
fn sweep(all: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(all)? {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != LOCK) {
            continue;
        }
        let Ok(lock) = File::open(&file) else {
            continue;
        };
        if is_locked(&lock)? && is_same(&lock, &file)? {
            drop(remove(&file.with_extension("")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_living_stay() {
        let work = tempfile::tempdir().unwrap();
        let first = OwnFolder::take(work.path()).unwrap();
        std::fs::write(first.path().join("shuffle"), "1").unwrap();
        // As another container sees it: the same number of a process.
        let second = OwnFolder::take(work.path()).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path().join("shuffle").is_file());
        // Killed: the lock is free, the folder is there.
        let killed = work.path().join("workers/77-0");
        std::fs::create_dir(&killed).unwrap();
        std::fs::write(killed.join("spill"), "2").unwrap();
        std::fs::write(killed.with_extension(LOCK), "").unwrap();
        let third = OwnFolder::take(work.path()).unwrap();
        assert!(!killed.is_dir());
        assert!(!killed.with_extension(LOCK).is_file());
        assert!(first.path().join("shuffle").is_file());
        drop((first, second, third));
        let left = std::fs::read_dir(work.path().join("workers")).unwrap();
        assert_eq!(left.count(), 0);
    }
}
