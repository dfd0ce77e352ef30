//! What is found out about a warehouse before its first run: each finding with what to do about it.

use std::fmt;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::store::DayLock;
use crate::store::LockError;
use crate::store::Store;
use crate::store::fail;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it must be.
    Ok,
    /// Runs, but slower or less safely than it could.
    Warn,
    /// Runs fail.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One line of a checkup.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is.
    pub remedy: String,
    /// What the file system or the network said, for the exit code.
    #[serde(skip)]
    pub kind: Option<io::ErrorKind>,
}

impl Finding {
    /// As it must be.
    #[must_use]
    pub fn ok(check: &'static str, found: String) -> Self {
        Self {
            check,
            level: Level::Ok,
            found,
            remedy: String::new(),
            kind: None,
        }
    }

    /// Something to mend, though runs work.
    #[must_use]
    pub fn warn(check: &'static str, found: String, remedy: &str) -> Self {
        Self {
            level: Level::Warn,
            remedy: remedy.to_owned(),
            ..Self::ok(check, found)
        }
    }

    /// Something that makes runs fail.
    #[must_use]
    pub fn fail(check: &'static str, found: String, remedy: &str) -> Self {
        Self {
            level: Level::Fail,
            remedy: remedy.to_owned(),
            ..Self::ok(check, found)
        }
    }

    /// An error that makes runs fail.
    #[must_use]
    pub fn of_error(check: &'static str, what: &str, error: &io::Error) -> Self {
        Self {
            kind: Some(error.kind()),
            ..Self::fail(check, format!("{what}: {error}"), remedy(error))
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    let text = error.to_string();
    match error.kind() {
        _ if text.contains("SafeMode") => {
            "wait until the NameNode has left safe mode (hdfs dfsadmin -safemode get); missing blocks or a full disk keep it there"
        }
        Kind::PermissionDenied if text.contains("Kerberos") => {
            "kinit, or set hadoop.principal and hadoop.keytab"
        }
        Kind::PermissionDenied => {
            "give this user the right to it: hdfs dfs -chown, -chmod or -setfacl"
        }
        Kind::NotFound => "make it, or set another warehouse",
        Kind::QuotaExceeded => {
            "raise the quota (hdfs dfsadmin -setSpaceQuota, -setQuota), or remove files"
        }
        Kind::StorageFull => "free space",
        Kind::ConnectionRefused | Kind::TimedOut | Kind::HostUnreachable => {
            "start it, open the firewall, or correct the address and port"
        }
        _ => "",
    }
}

/// Bytes of the file that is written and read to see how fast that is.
const PROBE_BYTES: usize = 16 << 20;
/// Below this nobody waits for a disk or a network, but for encryption.
const SLOW_BYTES_PER_S: f64 = 4e6;
/// Clocks that differ so much make Kerberos fail (its default limit is five minutes).
const SKEW_FAIL: Duration = Duration::from_secs(240);
const SKEW_WARN: Duration = Duration::from_secs(30);
/// The lock that is taken and given back.
const LOCK: &str = "doctor";

/// Looks at folders, writes, reads, locks.
#[must_use]
pub fn look(store: &Store, clock: fn() -> SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = store.root();
    match store.check_folder(root) {
        Ok(()) => findings.push(Finding::ok(
            "warehouse",
            format!("{} is there", store.url(root)),
        )),
        Err(error) => {
            findings.push(Finding::of_error("warehouse", &error.path, &error.error));
            return findings;
        }
    }
    let probe = store
        .work_area()
        .join(format!("doctor-{}", std::process::id()));
    findings.extend(write_and_read(store, &probe, clock));
    findings.push(lock(store));
    drop(store.files().remove(&probe));
    findings.push(space(store.work_dir(), store.is_local()));
    findings
}

#[expect(clippy::cast_precision_loss, reason = "a speed")]
fn write_and_read(store: &Store, probe: &Path, clock: fn() -> SystemTime) -> Vec<Finding> {
    let files = store.files();
    let pattern = (0..=250_u8).cycle();
    let bytes: Vec<u8> = pattern.take(PROBE_BYTES).collect();
    let area = store.work_area();
    let start = Instant::now();
    let before = clock();
    let written = files
        .make_folder(&area)
        .and_then(|()| files.put(probe, &bytes));
    if let Err(error) = written {
        return vec![Finding::of_error("write", &store.url(probe), &error)];
    }
    let speed = |start: Instant| PROBE_BYTES as f64 / start.elapsed().as_secs_f64();
    let write_speed = speed(start);
    let mut findings = vec![skew(store, probe, (before, clock()))];
    fail::point("doctor has written");
    let start = Instant::now();
    let mut read = Vec::new();
    let opened = files.open(probe);
    let done = opened.and_then(|(mut source, _)| source.read_to_end(&mut read));
    let read_speed = speed(start);
    findings.push(match done {
        Err(error) => Finding::of_error("read", &store.url(probe), &error),
        Ok(_) if read != bytes => Finding::fail(
            "read",
            format!(
                "{} bytes came back otherwise than they were written",
                read.len()
            ),
            "look for damaged disks or memory: hdfs fsck, and the logs of the DataNodes",
        ),
        Ok(_) => {
            let found = format!(
                "{:.0} MB/s written, {:.0} MB/s read",
                write_speed / 1e6,
                read_speed / 1e6
            );
            match write_speed.min(read_speed) < SLOW_BYTES_PER_S {
                true => Finding::warn(
                    "speed",
                    found,
                    "look at load, network and disks; privacy needs AES (the line protection)",
                ),
                false => Finding::ok("speed", found),
            }
        }
    });
    findings
}

/// The time of a file that was made now, against the clock of this machine.
fn skew(store: &Store, probe: &Path, (before, after): (SystemTime, SystemTime)) -> Finding {
    let made = match store.files().status(probe) {
        Ok(Some(entry)) => UNIX_EPOCH + Duration::from_nanos(entry.modified_ns),
        Ok(None) => {
            let missing = io::ErrorKind::NotFound.into();
            return Finding::of_error("clock", &store.url(probe), &missing);
        }
        Err(error) => return Finding::of_error("clock", &store.url(probe), &error),
    };
    let early = before.duration_since(made).unwrap_or_default();
    let late = made.duration_since(after).unwrap_or_default();
    let skew = early.max(late);
    let found = format!(
        "differs from that of the file system by {:.1} s",
        skew.as_secs_f64()
    );
    let remedy = "set both by NTP: Kerberos refuses more than five minutes, `ingest.settle` and leases count seconds";
    match skew {
        skew if skew >= SKEW_FAIL => Finding::fail("clock", found, remedy),
        skew if skew >= SKEW_WARN => Finding::warn("clock", found, remedy),
        _ => Finding::ok("clock", found),
    }
}

fn lock(store: &Store) -> Finding {
    let start = Instant::now();
    let fenced = DayLock::take(store, LOCK, "klieg doctor").and_then(|lock| {
        fail::point("doctor has the lock");
        lock.fence()
    });
    match fenced {
        Ok(()) => {
            let seconds = start.elapsed().as_secs_f64();
            Finding::ok(
                "lock",
                format!("taken, kept and given back in {seconds:.1} s"),
            )
        }
        Err(LockError::Held { owner, .. }) => Finding::warn(
            "lock",
            format!("held by {owner}"),
            "wait for the other doctor to end",
        ),
        Err(LockError::Io { path, error } | LockError::Lost { path, error }) => {
            Finding::of_error("lock", &path, &error)
        }
    }
}

/// Room for the Parquet files of a split and for what plans spill.
const SPACE_WANTED: u64 = 4 << 30;

fn space(work_dir: &Path, is_local: bool) -> Finding {
    if is_local {
        return Finding::ok(
            "work_dir",
            "not used: the warehouse is of this machine".to_owned(),
        );
    }
    let name = work_dir.display().to_string();
    if let Err(error) = std::fs::create_dir_all(work_dir) {
        return Finding::of_error("work_dir", &name, &error);
    }
    let probe: PathBuf = work_dir.join(format!("doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"klieg").and_then(|()| std::fs::remove_file(&probe))
    {
        return Finding::of_error("work_dir", &name, &error);
    }
    match rustix::fs::statvfs(work_dir) {
        Err(error) => Finding::of_error("work_dir", &name, &error.into()),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{name}: {} GiB free", free >> 30);
            match free < SPACE_WANTED {
                true => Finding::warn(
                    "work_dir",
                    text,
                    "free space, or set work_dir: 4 GiB and more",
                ),
                false => Finding::ok("work_dir", text),
            }
        }
    }
}
