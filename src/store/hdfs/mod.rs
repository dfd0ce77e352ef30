//! HDFS behind [`Files`]. The client is hdfs-native; what it lacks for a job that nobody watches is here.
//!
//! ```text
//! Files (blocking) ─► Cluster::call ─► a task of our own runtime ─► hdfs-native ─► NameNode, DataNodes
//!                          │  waits at most call_timeout, then a new client that asks the NameNodes in another order
//!                          └─ tried again, with growing pauses, for at most patience: only what may be repeated
//! ```
//! Every call runs on a runtime of our own and is waited for from outside: a NameNode that is stopped, a Kerberos library that
//! blocks its thread, a runtime busy with computing hold up nothing for longer than the time-out. What was asked may have been
//! done although the answer was lost: after a rename that failed both names are looked at.

mod call;
mod checkup;
mod error;
mod lock;
mod objects;
mod read;
mod target;
mod write;

use std::hash::BuildHasher as _;
use std::hash::Hasher as _;
use std::hash::RandomState;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use hdfs_native::client::FileStatus;
use object_store::ObjectStore;

use crate::config::ConfError;
use crate::config::Hadoop;
use crate::config::Location;
use crate::store::AT_ONCE;
use crate::store::LockError;
use crate::store::fail;
use crate::store::files::Entry;
use crate::store::files::Files;
use crate::store::files::Held;
use crate::store::files::Source;
use crate::store::hdfs::call::Cluster;
use crate::store::hdfs::lock::Lease;
use crate::store::hdfs::objects::Objects;
use crate::store::hdfs::read::HdfsSource;
use crate::store::local::check_mode;
use crate::store::local::check_owner;

pub(super) use checkup::look as checkup;

/// `hdfs://` and `viewfs://`.
#[derive(Debug)]
pub(super) struct Hdfs {
    cluster: Arc<Cluster>,
    /// Permissions of new folders and files.
    folder_mode: u32,
    file_mode: u32,
    /// What the NameNode calls this user, once it was asked.
    user: OnceLock<String>,
}

impl Hdfs {
    pub(super) fn open(location: &Location, hadoop: &Hadoop) -> Result<Self, ConfError> {
        let umask = hadoop.umask & 0o777;
        Ok(Self {
            cluster: Arc::new(Cluster::open(location, hadoop)?),
            folder_mode: 0o777 & !umask,
            file_mode: 0o666 & !umask,
            user: OnceLock::new(),
        })
    }

    pub(super) fn url(&self) -> &str {
        self.cluster.url()
    }

    fn move_to(&self, from: &str, to: &str, overwrite: bool) -> io::Result<()> {
        self.cluster.repeat("rename", |client| {
            let (from, to) = (from.to_owned(), to.to_owned());
            async move {
                match client.rename(&from, &to, overwrite).await {
                    // It was done, and the answer to that was lost.
                    Err(_) if is_moved(&client, &from, &to).await => Ok(()),
                    renamed => renamed,
                }
            }
        })
    }

    /// Returns what the NameNode calls this user: it makes a name of a ticket by rules of its own, so a folder that is made says it.
    fn user(&self, beside: Option<&Path>) -> io::Result<&str> {
        if let Some(user) = self.user.get() {
            return Ok(user);
        }
        // A name that nobody can have made before.
        let name = format!(".user-{:016x}", RandomState::new().build_hasher().finish());
        let folder = text(&beside.unwrap_or(Path::new("/")).join(name))?;
        let owner = self.cluster.repeat("learn the own name", |client| {
            let folder = folder.clone();
            async move {
                client.mkdirs(&folder, 0o700, false).await?;
                let owner = client.get_file_info(&folder).await?.owner;
                // It is empty, and in nobody's way.
                drop(client.delete(&folder, false).await);
                Ok(owner)
            }
        })?;
        Ok(self.user.get_or_init(|| owner))
    }

    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(Objects::new(Arc::clone(&self.cluster)))
    }
}

/// Returns the path as HDFS takes it.
fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name is not UTF-8, which HDFS asks for",
        )
    })?;
    Ok(text.to_owned())
}

fn entry(status: FileStatus) -> Entry {
    Entry {
        path: PathBuf::from(status.path),
        is_folder: status.isdir,
        bytes: status.length as u64,
        modified_ns: status.modification_time.saturating_mul(1_000_000),
        id: None,
        is_whole_blocks: !status.isdir
            && status
                .blocksize
                .is_some_and(|size| size > 0 && (status.length as u64).is_multiple_of(size)),
    }
}

impl Files for Hdfs {
    fn status(&self, path: &Path) -> io::Result<Option<Entry>> {
        let name = text(path)?;
        let status = self.cluster.repeat("stat", |client| {
            let name = name.clone();
            async move { client.get_file_info(&name).await }
        });
        match status {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            status => Ok(Some(entry(status?))),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let name = text(folder)?;
        let statuses = self.cluster.repeat("list", |client| {
            let name = name.clone();
            async move { client.list_status(&name, false).await }
        })?;
        let mut entries: Vec<_> = statuses.into_iter().map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    fn list_all(&self, folders: &[PathBuf]) -> Result<Vec<Vec<Entry>>, (PathBuf, io::Error)> {
        let list = |folder: &PathBuf| self.list(folder).map_err(|error| (folder.clone(), error));
        crate::parallel::map(AT_ONCE, folders, list)
            .into_iter()
            .collect()
    }

    fn open(&self, path: &Path) -> io::Result<(Box<dyn Source>, u64)> {
        let source = HdfsSource::open(&self.cluster, &text(path)?)?;
        let bytes = source.length();
        Ok((Box::new(source), bytes))
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = text(path)?;
        // Hidden from readers by its dot until it is complete.
        let parent = path.parent().unwrap_or(path);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let staged = text(&parent.join(format!(".{file}.tmp")))?;
        self.cluster.write(&staged, bytes, self.file_mode)?;
        fail::before_name(path);
        self.move_to(&staged, &name, true)
    }

    fn put_secret(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = text(path)?;
        let parent = path.parent().unwrap_or(path);
        let folder = text(parent)?;
        self.cluster.repeat("mkdirs", |client| {
            let folder = folder.clone();
            async move { client.mkdirs(&folder, 0o700, true).await }
        })?;
        let staged = text(&parent.join(format!(".{}.tmp", std::process::id())))?;
        self.cluster.write(&staged, bytes, 0o600)?;
        self.move_to(&staged, &name, true)
    }

    fn read_secret(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let name = text(path)?;
        let status = self.cluster.repeat("stat", |client| {
            let name = name.clone();
            async move { client.get_file_info(&name).await }
        });
        let status = match status {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            status => status?,
        };
        check_mode(u32::from(status.permission))?;
        check_owner(status.owner.as_str(), self.user(path.parent())?)?;
        let (mut source, length) = self.open(path)?;
        let mut bytes = Vec::new();
        source.by_ref().take(length).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn upload(&self, local: &Path, path: &Path) -> io::Result<()> {
        self.cluster.upload(local, &text(path)?, self.file_mode)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let name = text(folder)?;
        let mode = self.folder_mode;
        self.cluster.repeat("mkdirs", |client| {
            let name = name.clone();
            async move { client.mkdirs(&name, mode, true).await }
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.move_to(&text(from)?, &text(to)?, false)
    }

    fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = text(path)?;
        let removed = self.cluster.repeat("delete", |client| {
            let name = name.clone();
            async move { client.delete(&name, true).await }
        });
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<Box<dyn Held>, LockError> {
        let name = text(path).map_err(|error| LockError::Io {
            path: path.display().to_string(),
            error,
        })?;
        Ok(Box::new(Lease::take(
            &self.cluster,
            &name,
            owner,
            self.file_mode,
        )?))
    }

    fn break_lock(&self, path: &Path) -> io::Result<bool> {
        lock::break_lock(&self.cluster, &text(path)?)?;
        Ok(true)
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        lock::holder(&self.cluster, &text(path)?)
    }
}

/// True where a rename has happened although it failed: nothing at the old name, something at the new one.
async fn is_moved(client: &hdfs_native::Client, from: &str, to: &str) -> bool {
    let is_gone = matches!(
        client.get_file_info(from).await,
        Err(hdfs_native::HdfsError::FileNotFound(_))
    );
    is_gone && client.get_file_info(to).await.is_ok()
}
