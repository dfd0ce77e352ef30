//! What a file system must do for a warehouse.

use std::fmt::Debug;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;

use crate::store::LockError;

/// A file or folder.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// True for a folder.
    pub is_folder: bool,
    /// Length.
    pub bytes: u64,
    /// Last change, nanoseconds since 1970.
    pub modified_ns: u64,
    /// True for a file of whole blocks on HDFS, whose writer may stand between two of them.
    pub is_whole_blocks: bool,
    /// Number that tells it from all others while it exists, where the file system has such numbers.
    pub id: Option<(u64, u64)>,
}

impl Entry {
    /// Returns the last part of its path.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// An open file.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// A lock that this process holds until it is dropped.
pub trait Held: Debug + Send + Sync {
    /// Makes sure that the lock was not lost meanwhile, as it is where this process was stopped for long.
    ///
    /// # Errors
    /// Another run has, or may have, taken it.
    fn fence(&self) -> io::Result<()>;
}

/// A file system. Paths are absolute; every call ends within a stated time.
pub trait Files: Debug + Send + Sync {
    /// Looks at a path; `None` where nothing is.
    ///
    /// # Errors
    /// It cannot be looked at.
    fn status(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// Returns what is in a folder, by path.
    ///
    /// # Errors
    /// It is missing, no folder, or not for this user.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Returns what is in each of several folders, in their order.
    ///
    /// # Errors
    /// The first folder that cannot be listed.
    fn list_all(&self, folders: &[PathBuf]) -> Result<Vec<Vec<Entry>>, (PathBuf, io::Error)>;

    /// Opens a file that is complete, and returns its length.
    ///
    /// # Errors
    /// `WouldBlock` for a file that is still being written.
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Source>, u64)>;

    /// Writes a small file in one step: readers see all of it or what was there before.
    ///
    /// # Errors
    /// It cannot be written.
    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Writes a small file in one step that nobody else can read at any time, in a folder that nobody else can change.
    ///
    /// # Errors
    /// It cannot be written.
    fn put_secret(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Reads such a file; `None` where it is missing.
    ///
    /// # Errors
    /// `PermissionDenied` for one that belongs to another user or that others can read or write.
    fn read_secret(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Copies a file of this machine to a new file.
    ///
    /// # Errors
    /// It cannot be written, also not after several tries; nothing is left of it.
    fn upload(&self, local: &Path, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// It cannot be made.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives a file or folder another name, at which nothing is.
    ///
    /// # Errors
    /// It did not happen.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Lets two folders change places in one step; false where the file system cannot.
    ///
    /// # Errors
    /// It did not happen.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<bool>;

    /// Removes a file, or a folder with everything in it; nothing where it is missing.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Takes a lock; `owner` is shown to whoever comes while it is held.
    ///
    /// # Errors
    /// A live run has it, or the file cannot be made.
    fn lock(&self, path: &Path, owner: &str) -> Result<Box<dyn Held>, LockError>;

    /// Takes a lock from whoever holds it, who learns of it before he publishes; false where a lock ends with its process.
    ///
    /// # Errors
    /// The file system.
    fn break_lock(&self, path: &Path) -> io::Result<bool>;

    /// Returns what the live run that holds a lock says about itself; needs read rights only.
    ///
    /// # Errors
    /// The file cannot be read.
    fn holder(&self, path: &Path) -> io::Result<Option<String>>;
}
