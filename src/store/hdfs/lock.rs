//! A lock that is a lease: a file that its owner holds open.
//!
//! ```text
//! create ─► ours                     the NameNode lets one of many create a file, and one of many append to it
//!   └ exists ─► append ─► ours       its owner is gone: it closed the file, or its lease ran out 60 s after its last sign of life
//!                 └ refused ─► held
//! ```
//! The file stays when the lock is given back: whoever comes next appends. An owner that was frozen for longer than its lease learns
//! of it by `fence`: its next sync is refused. A reader cannot see what is in an open file, so the owner says who it is
//! in a file beside it.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use hdfs_native::Client;
use hdfs_native::HdfsError;
use hdfs_native::WriteOptions;
use hdfs_native::file::FileWriter;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::store::LockError;
use crate::store::files::Held;
use crate::store::hdfs::call::Cluster;
use crate::store::hdfs::read;
use crate::store::hdfs::write;
use crate::store::hdfs::write::BLOCK_MIN;
use crate::store::hdfs::write::is_final;

/// A lease of a dead owner that is being taken from it is asked for this often, this long.
const RECOVERY_PAUSE: Duration = Duration::from_secs(1);
const RECOVERY_MAX: Duration = Duration::from_secs(120);

/// Replicas of a lock file, also where the site has fewer: it is lost when all DataNodes of its block are.
const REPLICAS: u32 = 3;

/// What an owner says about itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Owner {
    text: String,
    host: String,
    process: Process,
}

/// A process, told from all others of its machine that ever were.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Process {
    /// The boot of the machine, and the name space of its process numbers.
    machine: String,
    pid: u32,
    started: String,
}

impl Process {
    fn this() -> Self {
        let pid = std::process::id();
        Self {
            machine: machine(),
            pid,
            started: started(pid),
        }
    }

    /// True where it ran on this machine and does so no more.
    fn is_dead(&self) -> bool {
        let is_here = !self.machine.is_empty() && self.machine == machine();
        is_here && started(self.pid) != self.started
    }
}

fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    match (boot.trim(), space.display().to_string()) {
        ("", _) => String::new(),
        (boot, space) => format!("{boot} {space}"),
    }
}

/// When a process started, in ticks since the boot (`proc(5)`, field 22); empty where there is none.
fn started(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program may hold blanks and brackets.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace();
    match fields.next() {
        Some("Z") | None => String::new(),
        Some(_) => fields.nth(18).unwrap_or_default().to_owned(),
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Beside the folder of locks.
fn owner_path(lock: &str) -> PathBuf {
    let lock = Path::new(lock);
    let area = lock.parent().and_then(Path::parent).unwrap_or(lock);
    area.join("owners")
        .join(lock.file_name().unwrap_or_default())
}

/// A lock of ours.
pub(super) struct Lease {
    cluster: Arc<Cluster>,
    path: String,
    mode: u32,
    owner: Owner,
    /// Replaced where it stays with a NameNode that does not answer.
    writer: std::sync::Mutex<Writer>,
}

/// An open file; whoever is at work on it holds it.
type Writer = Arc<Mutex<Box<FileWriter>>>;

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.cluster.url(), self.path)
    }
}

/// What a try to take a lock ends in.
enum Tried {
    Ours(Box<FileWriter>),
    Held,
    /// The lease of a dead owner is being taken from it.
    Recovering,
}

impl Lease {
    fn writer(&self) -> Writer {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&writer)
    }

    pub(super) fn take(
        cluster: &Arc<Cluster>,
        path: &str,
        text: &str,
        mode: u32,
    ) -> Result<Self, LockError> {
        let fail = |error| LockError::Io {
            path: format!("{}{path}", cluster.url()),
            error,
        };
        let owner = Owner {
            text: text.to_owned(),
            host: host(),
            process: Process::this(),
        };
        let start = Instant::now();
        let writer = loop {
            match try_take(cluster, path, mode).map_err(fail)? {
                Tried::Ours(writer) => match sign(cluster, path, &owner, mode, writer) {
                    Ok(writer) => break writer,
                    Err(error)
                        if is_final(&error)
                            || start.elapsed() >= cluster.hadoop().write_patience =>
                    {
                        return Err(fail(error));
                    }
                    Err(error) => match read_owner(cluster, path).map_err(fail)? {
                        // A DataNode of its block is gone: the lease is given to those that are there.
                        Some(signed) if signed == owner => {
                            take_away(cluster, path, RECOVERY_MAX).map_err(fail)?;
                        }
                        Some(other) if !other.process.is_dead() => {
                            return Err(held(cluster, path, Some(other)));
                        }
                        _ => return Err(fail(error)),
                    },
                },
                Tried::Recovering if start.elapsed() < RECOVERY_MAX => {}
                Tried::Held if start.elapsed() < RECOVERY_MAX => {
                    match read_owner(cluster, path).map_err(fail)? {
                        Some(owner) if owner.process.is_dead() => {
                            cluster.recover_lease(path).map_err(fail)?;
                        }
                        Some(owner) => return Err(held(cluster, path, Some(owner))),
                        // Whoever has it is about to sign it; or it is ours, and the answer was lost.
                        None => {}
                    }
                }
                Tried::Held | Tried::Recovering => {
                    let owner = read_owner(cluster, path).map_err(fail)?;
                    return Err(held(cluster, path, owner));
                }
            }
            std::thread::sleep(RECOVERY_PAUSE);
        };
        Ok(Self {
            cluster: Arc::clone(cluster),
            path: path.to_owned(),
            mode,
            owner,
            writer: std::sync::Mutex::new(writer),
        })
    }

    /// Takes the lease from our own writer, where nobody else has it meanwhile: whoever takes a lock signs it, and is refused
    /// where his lease is taken from him before he has.
    fn take_again(&self) -> io::Result<()> {
        let lost = |text: &str| io::Error::other(text.to_owned());
        let is_ours = || -> io::Result<bool> {
            Ok(read_owner(&self.cluster, &self.path)?.is_some_and(|owner| owner == self.owner))
        };
        if !is_ours()? {
            return Err(lost("another run has signed it"));
        }
        let patience = self.cluster.hadoop().write_patience;
        take_away(&self.cluster, &self.path, patience)?;
        let start = Instant::now();
        let writer = loop {
            match try_take(&self.cluster, &self.path, self.mode)? {
                Tried::Ours(writer) => break writer,
                Tried::Recovering if start.elapsed() < self.cluster.hadoop().write_patience => {
                    std::thread::sleep(RECOVERY_PAUSE);
                }
                Tried::Held | Tried::Recovering => return Err(lost("another run has it")),
            }
        };
        if !is_ours()? {
            return Err(lost("another run has signed it"));
        }
        let mut own = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        *own = Arc::new(Mutex::new(writer));
        Ok(())
    }
}

/// Says who holds a lock, and makes sure that it is held.
fn sign(
    cluster: &Cluster,
    path: &str,
    owner: &Owner,
    mode: u32,
    writer: Box<FileWriter>,
) -> io::Result<Writer> {
    let json = serde_json::to_vec(owner)?;
    cluster.write(&owner_path(path).display().to_string(), &json, mode)?;
    let writer = Arc::new(Mutex::new(writer));
    let line = Bytes::from(format!("{}\n", owner.text));
    let limit = cluster.hadoop().data_timeout;
    let own = Arc::clone(&writer);
    cluster.call("write the lock", limit, |_| async move {
        let mut own = own.lock().await;
        own.write_bytes(line).await?;
        own.hsync().await
    })?;
    Ok(writer)
}

fn held(cluster: &Cluster, path: &str, owner: Option<Owner>) -> LockError {
    let owner = owner.map_or_else(
        || "nobody says who".to_owned(),
        |owner| format!("{} on {}", owner.text, owner.host),
    );
    LockError::Held {
        path: format!("{}{path}", cluster.url()),
        owner: format!("{owner}; the lock of a killed one is free a minute after its end"),
    }
}

fn try_take(cluster: &Cluster, path: &str, mode: u32) -> io::Result<Tried> {
    let options = WriteOptions::default()
        .permission(mode)
        .replication(REPLICAS)
        .block_size(BLOCK_MIN);
    let limit = cluster.hadoop().data_timeout;
    cluster.persist(cluster.hadoop().patience, || {
        cluster.call("lock", limit, |client| {
            let (path, options) = (path.to_owned(), options.clone());
            async move {
                match client.create(&path, options).await {
                    Err(HdfsError::AlreadyExists(_)) => append(&client, &path).await,
                    created => created.map(|writer| Tried::Ours(Box::new(writer))),
                }
            }
        })
    })
}

async fn append(client: &Client, path: &str) -> hdfs_native::Result<Tried> {
    match client.append(path).await {
        Err(HdfsError::AlreadyExists(_)) => Ok(Tried::Held),
        Err(HdfsError::RPCError(class, _)) if class.ends_with("RecoveryInProgressException") => {
            Ok(Tried::Recovering)
        }
        Err(HdfsError::RPCError(class, _)) if class.ends_with("AlreadyBeingCreatedException") => {
            Ok(Tried::Held)
        }
        appended => appended.map(|writer| Tried::Ours(Box::new(writer))),
    }
}

fn read_owner(cluster: &Arc<Cluster>, path: &str) -> io::Result<Option<Owner>> {
    let owner = owner_path(path).display().to_string();
    let read = cluster.repeat_read("read", |client| {
        let owner = owner.clone();
        async move {
            let reader = client.read(&owner).await?;
            reader.read_range(0, reader.file_length()).await
        }
    });
    match read {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns who holds a lock: the file is open, and the process that says so is not known to be dead.
pub(super) fn holder(cluster: &Arc<Cluster>, path: &str) -> io::Result<Option<String>> {
    let opened = cluster.repeat("open", |client| read::open(client, path.to_owned()));
    let is_open = match opened {
        Ok((_, is_open)) => is_open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if !is_open {
        return Ok(None);
    }
    let owner = read_owner(cluster, path)?;
    let alive = owner.filter(|owner| !owner.process.is_dead());
    Ok(alive.map(|owner| format!("{} on {}", owner.text, owner.host)))
}

/// Takes a lock from its owner for good: it is signed by nobody, so that he cannot take it again.
pub(super) fn break_lock(cluster: &Cluster, path: &str) -> io::Result<()> {
    let owner = owner_path(path).display().to_string();
    cluster.repeat("delete", |client| {
        let owner = owner.clone();
        async move { client.delete(&owner, false).await }
    })?;
    take_away(cluster, path, RECOVERY_MAX)
}

/// Takes the lease from whoever has it, and waits until the file is closed: a NameNode of default settings asks a DataNode that is gone
/// for a minute and a half before it asks another.
fn take_away(cluster: &Cluster, path: &str, patience: Duration) -> io::Result<()> {
    let start = Instant::now();
    while !cluster.recover_lease(path)? {
        if start.elapsed() >= patience {
            let text = "the NameNode has not closed it yet; try again";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(RECOVERY_PAUSE);
    }
    Ok(())
}

impl Cluster {
    /// Takes the lease from whoever has it; true when the file is closed.
    fn recover_lease(&self, path: &str) -> io::Result<bool> {
        self.repeat("recover the lease", |client| {
            let path = path.to_owned();
            async move { client.recover_lease(&path).await }
        })
    }
}

impl Held for Lease {
    fn fence(&self) -> io::Result<()> {
        let writer = self.writer();
        let limit = self.cluster.hadoop().call_timeout;
        let synced = self.cluster.call("fence", limit, |_| async move {
            writer.lock().await.hsync().await
        });
        // The writer stays with the NameNode and the DataNodes that it had, also when they are gone.
        synced.or_else(|error| {
            let again = self.take_again();
            again.map_err(|lost| io::Error::new(lost.kind(), format!("{lost}; {error}")))
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let writer = self.writer();
        let limit = self.cluster.hadoop().call_timeout;
        // What is not closed is free a minute after the end of this process.
        drop(self.cluster.call("unlock", limit, |_| async move {
            write::close(&mut *writer.lock().await).await
        }));
    }
}
