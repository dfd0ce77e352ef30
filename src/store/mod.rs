//! Every file that comes from or goes to the warehouse: raw files, locks, staging, publishing, history.
//!
//! ```text
//! lock the day ─► finish what a killed run began to publish ─► stage under .klieg/runs ─► verify ─► lock still ours?
//!              ─► journal ─► each folder changes places with the published one (old one to .klieg/trash) ─► catalog ─► _SUCCESS
//!              ─► journal gone
//! ```
//! Readers see the old folder or the new one: `file://` exchanges them in one step; on HDFS there is nothing at all for the
//! instant between two renames. A run that is killed before the journal leaves only its staging folder, which the next run of the
//! day removes; one that is killed after it is finished by the next run, or by `klieg recover`.
//!
//! [`files::Files`] is what a file system must do; `local` and `hdfs` do it. Errors are [`std::io::Error`] with the kind that says
//! what to do: `PermissionDenied` also for tickets that are missing, `WouldBlock` for a file that is still being written,
//! and those of [`is_unavailable`] for a cluster that does not answer.

mod checkup;
pub mod fail;
pub mod files;
mod hdfs;
mod journal;
pub mod landing;
mod local;
mod lock;
mod manifest;
mod staging;
mod trash;
mod versions;

use std::error::Error;
use std::fmt;
use std::io;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;

use crate::config::ConfError;
use crate::config::Config;
use crate::store::files::Entry;
use crate::store::files::Files;
use crate::store::hdfs::Hdfs;
use crate::store::local::Local;

pub use checkup::Finding;
pub use checkup::Level;
pub use checkup::look as checkup;
pub use journal::Finished;
pub use journal::PublishError;
pub use journal::Published;
pub use lock::DayLock;
pub use lock::LockError;
pub use lock::break_lock;
pub use lock::held_locks;
pub use manifest::Manifest;
pub use manifest::fingerprint;
pub use staging::Staging;
pub use staging::StoreError;
pub use staging::remove_staging;
pub use staging::stop_publishing;
pub use trash::Replaced;
pub use trash::clear as clear_trash;
pub use trash::put_back;
pub use trash::replaced;
pub use versions::Places;

/// Files that are looked at together: each waits for an answer, not for a processor.
pub const AT_ONCE: NonZeroUsize = match NonZeroUsize::new(16) {
    Some(files) => files,
    None => NonZeroUsize::MIN,
};
/// Our folder below the root of the warehouse.
const WORK_AREA: &str = ".klieg";
/// Empty file that says to schedulers that a folder is complete (Oozie's done-flag).
const SUCCESS: &str = "_SUCCESS";

/// A warehouse.
#[derive(Clone)]
pub struct Store {
    files: Arc<dyn Files>,
    objects: Option<Arc<dyn ObjectStore>>,
    root: PathBuf,
    prefix: String,
    work_dir: PathBuf,
    versioned: bool,
    listener: Option<Arc<dyn Listener>>,
    recorder: Option<Arc<dyn Recorder>>,
}

/// Folders that have a new content.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// Name of the partition's lock.
    pub key: &'a str,
    /// The run that made the content.
    pub run: &'a str,
    /// Names under which the folders were staged, and where they are by the canonical layout.
    pub folders: &'a [(String, PathBuf)],
    /// Where partitions lie.
    pub places: &'a Places,
}

/// Who is told of a publication when its folders are in place, before schedulers are by `_SUCCESS`.
pub trait Listener: Send + Sync {
    /// Prepares for folders that are about to change places: their names, where they are staged, and where they go. What readers find
    /// does not change.
    ///
    /// # Errors
    /// The publication stays half done and is prepared again.
    fn expected(
        &self,
        store: &Store,
        key: &str,
        folders: &[(String, PathBuf, PathBuf)],
    ) -> Result<(), StoreError>;

    /// Takes note of it; it may be told of one twice.
    ///
    /// # Errors
    /// The publication stays half done and is told again.
    fn published(&self, store: &Store, publication: &Publication<'_>) -> Result<(), StoreError>;
}

/// Who keeps a record of each publication, before its journal is gone.
pub trait Recorder: Send + Sync {
    /// Keeps it; it may be told of one twice.
    ///
    /// # Errors
    /// The publication stays half done and is told again.
    fn record(&self, store: &Store, key: &str, finished: &Finished) -> Result<(), StoreError>;
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url(&self.root))
    }
}

/// The file system of a warehouse in plans.
const PLAN_URL: &str = "warehouse://klieg";

impl Store {
    /// Opens the warehouse of a configuration. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// Hadoop's configuration cannot be read or names no such file system.
    pub fn open(config: &Config) -> Result<Self, ConfError> {
        let location = &config.warehouse;
        if location.is_local() {
            return Ok(Self {
                versioned: config.is_versioned,
                ..Self::local(&location.path)
            });
        }
        let hdfs = Hdfs::open(location, &config.hadoop)?;
        Ok(Self {
            prefix: hdfs.url().to_owned(),
            objects: Some(hdfs.objects()),
            files: Arc::new(hdfs),
            root: location.path.clone(),
            work_dir: config.work_dir.clone(),
            versioned: config.is_versioned,
            listener: None,
            recorder: None,
        })
    }

    /// Opens a folder of this machine.
    #[must_use]
    pub fn local(root: &Path) -> Self {
        Self {
            files: Arc::new(Local),
            objects: None,
            root: root.to_path_buf(),
            prefix: String::new(),
            work_dir: PathBuf::new(),
            versioned: false,
            listener: None,
            recorder: None,
        }
    }

    /// Returns the file system.
    #[must_use]
    pub fn files(&self) -> &dyn Files {
        self.files.as_ref()
    }

    /// Returns the file system as plans read it, and its URL in them; `None` for that of this machine.
    #[must_use]
    pub fn objects(&self) -> Option<(&str, Arc<dyn ObjectStore>)> {
        let objects = self.objects.as_ref()?;
        Some((PLAN_URL, Arc::clone(objects)))
    }

    /// Returns a path as plans have it. Machines may know one warehouse by several names (by an address where they have a token),
    /// and its plans by none of them.
    #[must_use]
    pub fn plan_url(&self, path: &Path) -> String {
        match self.is_local() {
            true => path.display().to_string(),
            false => format!("{PLAN_URL}{}", path.display()),
        }
    }

    /// True where the warehouse is a folder of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.objects.is_none()
    }

    /// True for a partition whose publications lie in folders of their own.
    #[must_use]
    pub fn is_versioned(&self, target: &Path) -> bool {
        self.versioned && versions::is_partition(target)
    }

    /// Where versioned partitions without rows lie.
    #[must_use]
    pub fn empty_version(&self) -> PathBuf {
        versions::empty(self)
    }

    /// Returns the root folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns our folder below the root.
    #[must_use]
    pub fn work_area(&self) -> PathBuf {
        self.root.join(WORK_AREA)
    }

    /// Returns the folder of this machine for files on their way to HDFS.
    #[must_use]
    pub fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    /// Returns a path as people read it: `hdfs://namenode:8020/user/spot/flow`, or the path itself on this machine.
    #[must_use]
    pub fn url(&self, path: &Path) -> String {
        format!("{}{}", self.prefix, path.display())
    }

    /// Returns a path as Hive knows it, whose default file system is HDFS: `file:///var/lib/klieg/flow` on this machine.
    #[must_use]
    pub fn uri(&self, path: &Path) -> String {
        let scheme = if self.is_local() { "file://" } else { "" };
        format!("{scheme}{}", self.url(path))
    }

    /// Says where an error came up.
    pub fn at(&self, path: &Path) -> impl Fn(io::Error) -> StoreError {
        move |error| StoreError {
            path: self.url(path),
            error,
        }
    }

    /// Looks at a folder that must be there.
    ///
    /// # Errors
    /// It is missing, no folder, or not for this user.
    pub fn check_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let kind = match self.files.status(folder).map_err(self.at(folder))? {
            Some(entry) if entry.is_folder => return Ok(()),
            Some(_) => io::ErrorKind::NotADirectory,
            None => io::ErrorKind::NotFound,
        };
        Err(self.at(folder)(kind.into()))
    }

    /// Returns what is in a folder, by path; nothing where it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        match self.files.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries,
        }
    }

    /// Reads a small file of ours; `None` where it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.read_at_most(path, u64::MAX)
    }

    /// Reads a file that anybody may have written, unless it has more bytes than it may have; `None` where it is missing.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` for a larger one.
    pub fn read_at_most(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        let (mut source, bytes) = match self.files.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if bytes > most {
            let text = format!("has {bytes} bytes, more than {most}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut text = Vec::new();
        source.by_ref().take(bytes).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// Reads a small file that nobody else can read or write; `None` where it is missing.
    ///
    /// # Errors
    /// `PermissionDenied` where others can.
    pub fn read_secret(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.files.read_secret(path)
    }

    /// Keys of publications that a killed run has not finished.
    ///
    /// # Errors
    /// The journal cannot be listed.
    pub fn half_published(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.work_area().join("journal");
        journal::pending(self).map_err(self.at(&folder))
    }

    /// True where a killed run has not finished a publication of this key, or a live one is about it.
    ///
    /// # Errors
    /// The journal cannot be listed.
    pub fn is_half_published(&self, key: &str) -> Result<bool, StoreError> {
        let folder = self.work_area().join("journal").join(key);
        journal::is_pending(self, key).map_err(self.at(&folder))
    }

    /// Finishes what killed runs of this key have begun to publish, the oldest first. The caller holds the lock.
    ///
    /// # Errors
    /// The file system, or a journal of another version.
    pub fn recover(&self, key: &str, lock: &DayLock) -> Result<Vec<Finished>, PublishError> {
        journal::recover(self, key, lock)
    }

    /// Returns the warehouse with whoever is told of publications.
    #[must_use]
    pub fn telling(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Returns the warehouse with whoever keeps records of publications.
    #[must_use]
    pub fn recording(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    fn record(&self, key: &str, finished: &Finished) -> Result<(), StoreError> {
        match &self.recorder {
            Some(recorder) => recorder.record(self, key, finished),
            None => Ok(()),
        }
    }

    /// Prepares whoever is told of publications for one.
    fn expect(&self, key: &str, folders: &[(String, PathBuf, PathBuf)]) -> Result<(), StoreError> {
        match &self.listener {
            Some(listener) => listener.expected(self, key, folders),
            None => Ok(()),
        }
    }

    /// Tells whoever is told of publications of one.
    ///
    /// # Errors
    /// The listener's.
    fn tell(&self, publication: &Publication<'_>) -> Result<(), StoreError> {
        match &self.listener {
            Some(listener) => listener.published(self, publication),
            None => Ok(()),
        }
    }
}

/// Looks at the cluster of a warehouse; nothing where it is of this machine.
#[must_use]
pub fn checkup_cluster(config: &Config) -> Vec<Finding> {
    match config.warehouse.is_local() {
        true => Vec::new(),
        false => hdfs::checkup(&config.warehouse, &config.hadoop),
    }
}

/// True for errors of a cluster that does not answer or refuses work for now.
#[must_use]
pub fn is_unavailable(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::TimedOut
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::NotConnected
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::ResourceBusy
    )
}

/// Returns what the file system or the network said, where that is why something failed.
#[must_use]
pub fn io_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| {
        (**error).source()
    });
    causes.find_map(|cause| cause.downcast_ref())
}
