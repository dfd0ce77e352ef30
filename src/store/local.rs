//! The file system of this machine.

use std::fmt::Display;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::fs::renameat_with;

use crate::store::LockError;
use crate::store::fail;
use crate::store::files::Entry;
use crate::store::files::Files;
use crate::store::files::Held;
use crate::store::files::Source;
use crate::store::lock::OsLock;

/// How often a folder is removed again to which somebody adds files meanwhile: a worker may write for its driver until it sees it dead.
const AGAIN: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// `file://`.
#[derive(Debug)]
pub(super) struct Local;

impl Files for Local {
    fn status(&self, path: &Path) -> io::Result<Option<Entry>> {
        match std::fs::metadata(path) {
            Ok(metadata) => entry(path.to_path_buf(), &metadata).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Links are followed; what vanishes meanwhile and links to nowhere are left out.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in std::fs::read_dir(folder)? {
            entries.extend(self.status(&found?.path())?);
        }
        entries.sort();
        Ok(entries)
    }

    fn list_all(&self, folders: &[PathBuf]) -> Result<Vec<Vec<Entry>>, (PathBuf, io::Error)> {
        let list = |folder: &PathBuf| self.list(folder).map_err(|error| (folder.clone(), error));
        folders.iter().map(list).collect()
    }

    fn open(&self, path: &Path) -> io::Result<(Box<dyn Source>, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((Box::new(file), bytes))
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut staged = path.as_os_str().to_owned();
        staged.push(".tmp");
        let staged = PathBuf::from(staged);
        let mut file = File::create(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fail::before_name(path);
        std::fs::rename(&staged, path)?;
        sync_parent(path)
    }

    fn put_secret(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(path);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
        let staged = parent.join(format!(".{}.tmp", std::process::id()));
        self.remove(&staged)?;
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600);
        let mut file = file.open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&staged, path)?;
        sync_parent(path)
    }

    fn read_secret(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        // Of what was opened, not of what has the name meanwhile.
        let metadata = file.metadata()?;
        let user = rustix::process::geteuid().as_raw();
        check_owner(&metadata.uid(), &user)?;
        check_mode(metadata.mode())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn upload(&self, local: &Path, path: &Path) -> io::Result<()> {
        std::fs::copy(local, path)?;
        File::open(path)?.sync_all()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
        sync_parent(to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<bool> {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
        sync_parent(other)?;
        Ok(true)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let is_folder = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if is_folder {
            remove_folder(path)
        } else {
            std::fs::remove_file(path)
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<Box<dyn Held>, LockError> {
        Ok(Box::new(OsLock::take(path, owner)?))
    }

    fn break_lock(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        OsLock::holder(path)
    }
}

/// Refuses what belongs to another user.
pub(super) fn check_owner<User: Display + PartialEq + ?Sized>(
    owner: &User,
    user: &User,
) -> io::Result<()> {
    if owner == user {
        return Ok(());
    }
    Err(exposed(&format!(
        "belongs to user {owner}, this is user {user}"
    )))
}

/// Refuses a mode that lets others in.
pub(super) fn check_mode(mode: u32) -> io::Result<()> {
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(exposed(&format!(
            "has mode {:o}, which lets others in, and is not believed; must be 600",
            mode & 0o777
        ))),
    }
}

fn exposed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn entry(path: PathBuf, metadata: &Metadata) -> io::Result<Entry> {
    let since = metadata.modified()?.duration_since(UNIX_EPOCH);
    Ok(Entry {
        path,
        is_folder: metadata.is_dir(),
        bytes: metadata.len(),
        modified_ns: u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX),
        is_whole_blocks: false,
        id: Some((metadata.dev(), metadata.ino())),
    })
}

/// Removes a folder also where files come to it, or go, meanwhile.
fn remove_folder(path: &Path) -> io::Result<()> {
    for _ in 0..AGAIN {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
    }
    std::fs::remove_dir_all(path)
}

/// A rename lasts through a loss of power only when its folder is on the disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_folder_is_removed_while_somebody_writes_to_it() {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("runs/flow-20160708");
        let late = folder.join("run/table");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                for number in 0.. {
                    // Like a worker: into folders that it makes.
                    drop(std::fs::create_dir_all(&late));
                    drop(std::fs::write(late.join(number.to_string()), b""));
                    if start.elapsed() > 10 * PAUSE {
                        break;
                    }
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                Local.remove(&folder).unwrap();
            }
        });
        Local.remove(&folder).unwrap();
        assert!(!folder.try_exists().unwrap());
    }
}
