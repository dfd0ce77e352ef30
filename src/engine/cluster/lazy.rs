//! A cluster that is there when the first plan needs it: days that are up to date wait for no worker.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::config;
use crate::config::Config;
use crate::engine::cluster::Cluster;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::children;
use crate::engine::cluster::least_memory;
use crate::engine::cluster::pool;
use crate::engine::cluster::pool::Keys;
use crate::engine::cluster::watch;
use crate::store::Store;

/// Which workers a driver uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Workers {
    /// Processes that it starts on this machine.
    Local(usize),
    /// Those of a pool.
    Pool(String),
}

/// A cluster that is started when the first plan needs it.
pub struct Lazy {
    pub(super) workers: Workers,
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) run: String,
    started: Mutex<Option<Result<Arc<Cluster>, Arc<ClusterError>>>>,
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Lazy {
    /// Takes `local:N` or the name of a pool.
    ///
    /// # Errors
    /// Neither, or a key that cannot be used; nothing is started.
    pub fn try_new(
        name: &str,
        config: &Config,
        store: &Store,
        run: &str,
    ) -> Result<Self, ClusterError> {
        let workers = parse(name).ok_or_else(|| ClusterError::Name(name.to_owned()))?;
        match workers {
            Workers::Pool(_) => {
                Keys::find(&config.pool)?.check(store, &config.hadoop)?;
                check_host(&config.cluster)?;
            }
            Workers::Local(number) => check_memory(number, config)?,
        }
        Ok(Self {
            workers,
            config: config.clone(),
            store: store.clone(),
            run: run.to_owned(),
            started: Mutex::default(),
        })
    }

    /// Starts it where it is not, and waits for its workers; what failed once fails again at once.
    ///
    /// # Errors
    /// No workers, or another driver has the pool.
    pub fn get(&self, tell: &(dyn Fn(&str) + Sync)) -> Result<Arc<Cluster>, Arc<ClusterError>> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let cluster = Cluster::start(self, tell);
            cluster.map(Arc::new).map_err(Arc::new)
        };
        started.get_or_insert_with(start).clone()
    }

    /// Tells of workers of another build, once of each.
    pub fn tell_refused(&self, tell: &(dyn Fn(&str) + Sync)) {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(cluster)) = &*started {
            cluster.tell_refused(tell);
        }
    }

    /// Lets workers of a pool know that this driver is gone, for a process that stops at once.
    pub fn retract(&self) {
        if let Workers::Pool(name) = &self.workers {
            pool::retract(&self.store, name, &self.run);
            if self.has_started() {
                watch::remove(&self.store, name);
            }
        }
    }

    /// True where this driver has the pool.
    fn has_started(&self) -> bool {
        // One that starts now holds it, and has shown nothing yet.
        let started = self.started.try_lock();
        started.is_ok_and(|started| matches!(&*started, Some(Ok(_))))
    }

    /// Ends it: workers leave, the pool is free.
    pub fn stop(&self) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        drop(started.take());
    }
}

/// Others must know how to call this machine.
pub(super) fn check_host(settings: &config::Cluster) -> Result<(), ClusterError> {
    match settings.bind.is_unspecified() && settings.external_host.is_none() {
        true => Err(ClusterError::Host),
        false => Ok(()),
    }
}

/// Workers of this machine share the memory of the run.
fn check_memory(workers: usize, config: &Config) -> Result<(), ClusterError> {
    let slots = children::slots_of_each(workers, config);
    let least = least_memory(slots) * workers as u64;
    match config.memory_bytes < least {
        true => Err(ClusterError::Memory {
            bytes: config.memory_bytes,
            workers,
            slots,
            least,
        }),
        false => Ok(()),
    }
}

fn parse(name: &str) -> Option<Workers> {
    if let Some(number) = name.strip_prefix("local:") {
        let number = number
            .parse()
            .ok()
            .filter(|number| (1..=64).contains(number));
        return number.map(Workers::Local);
    }
    check_pool(name).ok()?;
    Some(Workers::Pool(name.to_owned()))
}

/// Makes sure that a name can be that of a pool.
///
/// # Errors
/// It is empty, too long, or has other symbols than letters, digits, - and _.
pub fn check_pool(name: &str) -> Result<(), ClusterError> {
    match is_plain(name) {
        true => Ok(()),
        false => Err(ClusterError::Name(name.to_owned())),
    }
}

/// True for a name that is no path: letters, digits, - and _.
pub(super) fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(is_plain)
}
