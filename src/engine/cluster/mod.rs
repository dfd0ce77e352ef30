//! Plans on workers: processes that run a driver's tasks, on Ballista.
//!
//! ```text
//! driver                                          worker (parent looks for drivers, one child process a driver run)
//!  Cluster ─ scheduler ─ Gate (own TLS port)  ◄── PollWork: asks for tasks, tells what became of them ── session
//!     │         │                             ──► CancelTasks                                              │ runs tasks (`task`),
//!     │         └─ stages of a plan ─► tasks                                                               │ writes table files
//!     │                                           Flight (own TLS port) ◄── shuffles of other workers ─────┤ and shuffles
//!     └─ result ◄──────────────────────────────── Flight                                                   │
//! ```
//! A worker pulls: that leaves two listening ports in all, both served by us behind mutual TLS (`auth`), and no daemon in between.
//! Plans are submitted inside the driver, physical and planned statically. What a job gives counts only where nothing went wrong on
//! its way (`guard`): else it is thrown away, with every file that it wrote, and the job is run again under another number. A task
//! that is late writes where nobody looks.
//!
//! Results do not depend on workers: work is cut by the data, reports are sorted, counts are whole numbers.

mod auth;
mod blame;
mod budget;
mod children;
mod control;
mod dial;
mod driver;
mod fitness;
mod folder;
mod gate;
mod guard;
mod handed;
mod heap;
mod heartbeat;
mod jobs;
mod lazy;
mod member;
mod members;
mod parent;
mod paths;
mod pool;
mod refusals;
mod seek;
mod shuffles;
mod watch;
mod worker;

use std::time::Duration;

use crate::store::LockError;
use crate::store::StoreError;

pub use auth::Authority;
pub use budget::least_memory;
pub use driver::Cluster;
pub use folder::OwnFolder;
pub use lazy::Lazy;
pub use lazy::check_pool;
pub use member::Member;
pub use parent::Doing;
pub use parent::Where;
pub use parent::look_for_drivers;
pub use pool::lock;
pub use seek::Seek;
pub use watch::Driver;
pub use watch::drivers;
pub use worker::Order;
pub use worker::serve;

/// Why there is no cluster, or none that works.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A name that is no pool.
    #[error("`{0}` is neither the name of a pool (letters, digits, - and _) nor local:N")]
    Name(String),
    /// HDFS without Kerberos believes anybody's name, so that a pool file protects nothing.
    #[error(
        "{warehouse}: without Kerberos anybody could read the key of a pool there, or replace it; put one key on every node (klieg emit pool-key > pool.pem; chmod 600) and set pool.secret"
    )]
    Open {
        /// The warehouse.
        warehouse: String,
    },
    /// A worker that looks for its driver at an address has no pool file to take a key from.
    #[error(
        "--driver needs a key on every node: klieg emit pool-key > pool.pem; chmod 600; set pool.secret here and for the driver (or cluster.tls)"
    )]
    Keyless,
    /// A key or certificate that cannot be used.
    #[error("{path}: {what}")]
    Secret {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// Another driver has the pool.
    #[error(transparent)]
    Busy(LockError),
    /// The pool file.
    #[error(transparent)]
    Store(StoreError),
    /// The port.
    #[error(
        "{address}: cannot listen there: {error}; set cluster.bind and cluster.port, or leave the port 0"
    )]
    Bind {
        /// Address and port.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Listening on all addresses says none by which others call.
    #[error(
        "cluster.bind is an address for all, so others do not know how to call this machine: set cluster.external_host"
    )]
    Host,
    /// Workers of this machine share its memory out.
    #[error(
        "memory {} MiB is too little for {workers} workers of {slots} tasks at a time: the least that works is {} MiB; raise memory, or take fewer workers or threads",
        bytes >> 20,
        least >> 20
    )]
    Memory {
        /// What they share, bytes.
        bytes: u64,
        /// Workers.
        workers: usize,
        /// Tasks of each at a time.
        slots: usize,
        /// The least for all of them, bytes.
        least: u64,
    },
    /// Too few workers.
    #[error("{found} of {wanted} workers after {} s: {saw}", waited.as_secs())]
    NoWorkers {
        /// Workers that could be used.
        found: usize,
        /// How many were waited for.
        wanted: usize,
        /// How long.
        waited: Duration,
        /// What was seen: pool file, workers that dialled, why they are not used.
        saw: String,
    },
    /// A job went wrong again and again.
    #[error("given up after {tries} tries, nothing of them was kept: {why}")]
    Tries {
        /// How often it was tried.
        tries: u32,
        /// What went wrong the last time.
        why: String,
        /// True where that is the cluster of the warehouse, which did not answer.
        is_unavailable: bool,
    },
    /// The folder of workers cannot be made in `work_dir`.
    #[error("work_dir: {0}; set another work_dir")]
    WorkDir(std::io::Error),
    /// A worker process.
    #[error("worker: {0}")]
    Worker(String),
    /// Certificates or their exchange.
    #[error("pool: {0}")]
    Tls(String),
}

impl ClusterError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "so that it can be named where an error is mapped"
    )]
    fn tls(error: impl ToString) -> Self {
        Self::Tls(error.to_string())
    }
}
