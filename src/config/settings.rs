//! Checked settings: types, units, ranges.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;

/// How often a worker may be asked to say that it lives, milliseconds.
pub const HEARTBEAT_MS: RangeInclusive<u64> = 500..=5000;

/// What decides the day and hour of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventTime {
    /// Its first packet.
    Start,
    /// When the collector received it.
    Received,
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Received => "receipt",
        })
    }
}

/// Keys under `ingest`.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// What decides day and hour.
    pub event_time: EventTime,
    /// How far events may lie from the time in a file's name, milliseconds.
    pub slack_ms: u64,
    /// Raw bytes of a split.
    pub split_bytes: u64,
    /// Share of rejected records above which nothing is published, 0 to 1.
    pub rejects_max: f64,
    /// A file younger than this is waited for, milliseconds.
    pub settle_ms: u64,
}

/// Keys under `suspicious`.
#[derive(Clone, Debug)]
pub struct Suspicious {
    /// Compute as Spot does where Spot errs.
    pub compat_spot: bool,
    /// False for the fall-back without models.
    pub has_model: bool,
    /// True for `em`, false for `online`.
    pub em: bool,
    /// K.
    pub topics: usize,
    /// Models trained on presence.
    pub models: usize,
    /// Models trained on counts.
    pub token_models: usize,
    /// α.
    pub alpha: f64,
    /// η.
    pub beta: f64,
    /// Batch epochs.
    pub iterations: u32,
    /// Minibatch epochs.
    pub online_epochs: u32,
    /// Per cent of documents.
    pub held_out: u64,
    /// The highest p that is kept.
    pub threshold: f64,
    /// Flows that are kept; `None` for all below the threshold.
    pub max_results: Option<usize>,
    /// Groups of each order.
    pub groups: usize,
    /// Share of half B.
    pub half_b: f64,
}

/// Where a warehouse lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// `file`, `hdfs` or `viewfs`.
    pub scheme: String,
    /// `namenode:8020`, a name service, or empty for that of `fs.defaultFS`.
    pub authority: String,
    /// Absolute path.
    pub path: PathBuf,
}

impl Location {
    /// True for a folder of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.scheme == "file"
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if self.is_local() {
            return write!(f, "{path}");
        }
        write!(f, "{}://{}{path}", self.scheme, self.authority)
    }
}

/// Keys under `hadoop`, and what is laid over Hadoop's own configuration.
#[derive(Clone, Debug)]
pub struct Hadoop {
    /// Folder of its files; `None` for that of the environment.
    pub conf_dir: Option<PathBuf>,
    /// Files over those, the later wins.
    pub files: Vec<PathBuf>,
    /// Keys of Hadoop over all files.
    pub defines: Vec<(String, String)>,
    /// Environment, for the folder and for `${env.…}`.
    pub environment: BTreeMap<String, String>,
    /// User without Kerberos; `None` for that of the system.
    pub user: Option<String>,
    /// Kerberos principal of the keytab.
    pub principal: Option<String>,
    /// Keytab; `None` for the ticket cache or a token file.
    pub keytab: Option<PathBuf>,
    /// How long a call of the NameNode is waited for.
    pub call_timeout: Duration,
    /// How long data are waited for, and a second more for each MiB.
    pub data_timeout: Duration,
    /// How long a call that failed is tried again.
    pub patience: Duration,
    /// How long a file is written again.
    pub write_patience: Duration,
    /// Permissions that new files and folders lack.
    pub umask: u32,
}

/// Who tells the catalog of what is published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CatalogKind {
    /// Nobody.
    None,
    /// Whoever runs the statements that we write.
    Script,
    /// We tell Hive's metastore.
    Metastore,
}

/// Keys under `catalog`.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Who tells it.
    pub kind: CatalogKind,
    /// Database of the tables.
    pub database: String,
    /// URIs of the metastore; empty for `hive.metastore.uris`.
    pub uris: Vec<String>,
    /// Folder of `hive-site.xml`; `None` for that of the environment.
    pub conf_dir: Option<PathBuf>,
    /// How long one call is waited for.
    pub call_timeout: Duration,
    /// How long calls that got no answer are tried again.
    pub patience: Duration,
}

/// Certificates of the site, PEM files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// Who issued the certificates of all.
    pub authority: PathBuf,
    /// The certificate of this machine, whose names are those that others call it by.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Keys under `pool`, and the certificates of the site.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The key that every node has; `None` for one of each run in the pool file.
    pub secret: Option<PathBuf>,
    /// Certificates of the site, `cluster.tls`; `None` for certificates of each run.
    pub tls: Option<Tls>,
    /// How long a pool that another driver uses, and its workers, are waited for.
    pub wait: Duration,
    /// Workers that are waited for.
    pub min_workers: usize,
    /// How often a worker looks for a driver.
    pub poll: Duration,
}

/// Keys under `cluster`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where drivers and workers listen.
    pub bind: IpAddr,
    /// The port of drivers, 0 for any.
    pub port: u16,
    /// Name or address by which others call this machine; `None` for that where it listens.
    pub external_host: Option<String>,
    /// How often a worker says that it lives, within [`HEARTBEAT_MS`].
    pub heartbeat: Duration,
    /// A worker or driver that is silent for so long is gone.
    pub worker_timeout: Duration,
    /// How long they wait for each other's network.
    pub waits: Waits,
    /// The longest time of one job.
    pub job_timeout: Duration,
    /// How often a job is run again.
    pub max_reruns: u32,
    /// Pairs of IP and word from which on models are trained on workers.
    pub train_from: u64,
    /// The largest message.
    pub message_bytes: usize,
}

/// How long drivers and workers wait for each other's network.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// For a connection, and then for its handshake.
    pub connect: Duration,
    /// A worker for the answer of its driver.
    pub answer: Duration,
    /// For the head of any other answer.
    pub fetch: Duration,
    /// How long a connection may be silent before it is asked whether it lives, and how long that answer may take.
    pub keep_alive: Duration,
}

/// The checked configuration of a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every key with its text, for fingerprints.
    pub texts: BTreeMap<String, String>,
    /// Root folder of the warehouse.
    pub warehouse: Location,
    /// The clock of days and hours.
    pub zone: Tz,
    /// True where each publication of a partition has a folder of its own, to which the metastore is switched.
    pub is_versioned: bool,
    /// Folder of this machine for files on their way to HDFS.
    pub work_dir: PathBuf,
    /// How long what was replaced is kept.
    pub keep: Duration,
    /// How HDFS is reached.
    pub hadoop: Hadoop,
    /// What catalogs are told.
    pub catalog: Catalog,
    /// How drivers and workers meet.
    pub pool: Pool,
    /// How they work together.
    pub cluster: Cluster,
    /// Threads.
    pub threads: NonZeroUsize,
    /// Bytes that plans may take.
    pub memory_bytes: u64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Ingest.
    pub ingest: Ingest,
    /// Suspicious connections.
    pub suspicious: Suspicious,
}
