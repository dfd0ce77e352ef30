//! How workers find a driver: a small file of the warehouse for each pool, there while a driver uses the pool.
//!
//! ```text
//! driver: lock `pool-<name>` ─► port open ─► .klieg/pools/<name>.json ─► … ─► file removed ─► lock given back
//! worker:                                       read every second or two ─► dials host:port
//! ```
//! The file carries the key of the run's authority, unless every node has a key of its own (`pool.secret`, or certificates of the
//! site): whoever can read it may join, whoever can replace it owns the workers. So it has mode 600 from its first byte on, and is
//! believed only where it has it. HDFS without Kerberos believes anybody's name: there a key on every node is asked for.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;

use crate::config;
use crate::config::HadoopConf;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth::Auth;
use crate::engine::cluster::auth::Authority;
use crate::engine::cluster::auth::build;
use crate::engine::cluster::refusals;
use crate::store::DayLock;
use crate::store::LockError;
use crate::store::Store;

/// How often a pool that another driver uses is asked for.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// The longest pool file: anybody may have written it where it carries no key.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Host and port as they stand in a URL.
pub(super) fn address(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What a worker must know of a driver.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Rendezvous {
    /// Build of the driver; workers must have the same.
    pub(super) build: String,
    /// Its version, for people; empty where only its build is known.
    pub(super) version: String,
    /// Its run.
    pub(super) run: String,
    /// Where it listens.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// Certificate and key of the run's authority, as PEM; absent where each node has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
}

impl Rendezvous {
    pub(super) fn new(run: &str, (host, port): (&str, u16), authority: Option<&Authority>) -> Self {
        Self {
            build: build().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: run.to_owned(),
            host: host.to_owned(),
            port,
            authority: authority.map(Authority::text),
        }
    }

    /// The same of a driver of a build, whose version nobody knows.
    pub(super) fn of_build(mut self, build: &str) -> Self {
        build.clone_into(&mut self.build);
        self.version.clear();
        self
    }

    /// Returns what a process of this machine shows to the others of the run.
    ///
    /// # Errors
    /// No key, or one that cannot be used.
    pub(super) fn auth(
        &self,
        keys: &Keys,
        who: &str,
        waits: config::Waits,
    ) -> Result<Auth, ClusterError> {
        let run = (self.build.as_str(), self.run.as_str());
        match (keys, &self.authority) {
            (Keys::Site(tls), _) => Auth::of_site(tls, run, waits),
            (Keys::Secret(authority), _) => Auth::issue(authority, run, who, waits),
            (Keys::OfRun, Some(text)) => match Authority::parse(text) {
                Some(authority) => Auth::issue(&authority, run, who, waits),
                None => Err(ClusterError::tls("the pool file has no key")),
            },
            (Keys::OfRun, None) => Err(ClusterError::tls(
                "the driver uses a key of the nodes: set pool.secret here too",
            )),
        }
    }

    /// Names the program of the driver.
    pub(super) fn program(&self) -> String {
        let Self { version, build, .. } = self;
        match version.is_empty() {
            true => format!("klieg build {build}"),
            false => format!("klieg {version} build {build}"),
        }
    }

    /// True where what it says may stand in a log.
    fn is_printable(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+:[]%".contains(&byte);
        let texts = [&self.build, &self.version, &self.run, &self.host];
        texts.iter().all(|text| text.bytes().all(is_plain))
    }

    /// True for a driver of the same program.
    pub(super) fn is_same_build(&self) -> bool {
        self.build == build()
    }
}

/// Where the keys of a pool are.
pub(super) enum Keys {
    /// In the pool file, or in a pipe.
    OfRun,
    /// In a file on every node.
    Secret(Authority),
    /// Certificates of the site.
    Site(config::Tls),
}

impl Keys {
    /// Looks where the settings say.
    ///
    /// # Errors
    /// The file is missing, not a key, or open to others.
    pub(super) fn find(settings: &config::Pool) -> Result<Self, ClusterError> {
        let fail = |path: &Path, what: String| ClusterError::Secret {
            path: path.display().to_string(),
            what,
        };
        if let Some(tls) = &settings.tls {
            check_owner(&tls.key).map_err(|what| fail(&tls.key, what))?;
            return Ok(Self::Site(tls.clone()));
        }
        let Some(path) = &settings.secret else {
            return Ok(Self::OfRun);
        };
        let fail = |what| fail(path, what);
        check_owner(path).map_err(fail)?;
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        match Authority::parse(&text) {
            Some(authority) => Ok(Self::Secret(authority)),
            None => Err(fail(
                "holds no key; make one with klieg emit pool-key".to_owned(),
            )),
        }
    }

    /// Only a pool file says the key of a run.
    pub(super) fn check_own(&self) -> Result<(), ClusterError> {
        match self {
            Self::OfRun => Err(ClusterError::Keyless),
            Self::Secret(_) | Self::Site(_) => Ok(()),
        }
    }

    /// A pool file may carry a key only where its mode protects it.
    pub(super) fn check(&self, store: &Store, hadoop: &config::Hadoop) -> Result<(), ClusterError> {
        if store.is_local() || !matches!(self, Self::OfRun) {
            return Ok(());
        }
        let conf =
            HadoopConf::read(hadoop).map_err(|error| ClusterError::tls(error.to_string()))?;
        match conf.get("hadoop.security.authentication").as_deref() {
            Some("kerberos") => Ok(()),
            _ => Err(ClusterError::Open {
                warehouse: store.url(store.root()),
            }),
        }
    }

    fn in_file<'a>(&self, authority: &'a Authority) -> Option<&'a Authority> {
        matches!(self, Self::OfRun).then_some(authority)
    }
}

/// A file of this machine that is for this user alone, or that root lets this user read by a group: so do secrets of Kubernetes lie.
fn check_owner(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let user = rustix::process::geteuid().as_raw();
    owned(user, metadata.uid(), metadata.mode() & 0o777)
}

fn owned(user: u32, owner: u32, mode: u32) -> Result<(), String> {
    let (others, hint) = match owner {
        _ if owner == user => (0o077, "600"),
        0 => (0o037, "640"),
        _ => return Err(format!("belongs to user {owner}, this is user {user}")),
    };
    match mode & others {
        0 => Ok(()),
        _ => Err(format!(
            "has mode {mode:o}, others can read it: chmod {hint}"
        )),
    }
}

/// Where pool files are.
pub(super) fn folder(store: &Store) -> PathBuf {
    store.work_area().join("pools")
}

fn file(store: &Store, name: &str) -> PathBuf {
    folder(store).join(format!("{name}.json"))
}

/// Returns the driver of a pool; none where nobody uses it.
///
/// # Errors
/// A file that must not be believed, or the file system.
pub(super) fn find(
    store: &Store,
    name: &str,
    keys: &Keys,
) -> Result<Option<Rendezvous>, ClusterError> {
    let path = file(store, name);
    let text = match keys {
        Keys::OfRun => store.read_secret(&path),
        // It carries nothing that is worth stealing, and a false driver has no certificate.
        Keys::Secret(_) | Keys::Site(_) => store.read_at_most(&path, FILE_BYTES_MAX),
    };
    let Some(text) = text.map_err(|error| ClusterError::Store(store.at(&path)(error)))? else {
        return Ok(None);
    };
    let no_pool_file = |what: &dyn std::fmt::Display| ClusterError::Secret {
        path: store.url(&path),
        what: format!("is no pool file: {what}"),
    };
    let found: Rendezvous = serde_json::from_slice(&text).map_err(|error| no_pool_file(&error))?;
    match found.is_printable() {
        true => Ok(Some(found)),
        false => Err(no_pool_file(&"it says names that none of ours has")),
    }
}

/// Returns the lock that the driver holds that uses a pool.
#[must_use]
pub fn lock(pool: &str) -> String {
    format!("pool-{pool}")
}

/// The use of a pool by a driver; ends when it is dropped.
pub(super) struct Membership {
    store: Store,
    name: String,
    run: String,
    _lock: DayLock,
}

impl Membership {
    /// Waits until no other driver uses the pool; `tell` is told behind whom.
    pub(super) fn take(
        store: &Store,
        (name, run): (&str, &str),
        patience: Duration,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, ClusterError> {
        let start = Instant::now();
        let mut told = String::new();
        let lock = loop {
            let owner = format!("run {run}, process {}", std::process::id());
            match DayLock::take(store, &lock(name), &owner) {
                Err(LockError::Held { owner, .. }) if start.elapsed() < patience => {
                    if told != owner {
                        tell(&format!("pool {name}: waiting behind {owner}"));
                        told = owner;
                    }
                    std::thread::sleep(LOCK_PAUSE);
                }
                lock => break lock.map_err(ClusterError::Busy)?,
            }
        };
        // What a killed driver has not removed.
        refusals::remove(store, name);
        Ok(Self {
            store: store.clone(),
            name: name.to_owned(),
            run: run.to_owned(),
            _lock: lock,
        })
    }

    /// Returns which workers have refused to work for this run, and why.
    pub(super) fn refusals(&self) -> Vec<String> {
        refusals::list(&self.store, (&self.name, &self.run))
    }

    /// Tells workers where the driver listens; the port is open.
    pub(super) fn publish(&self, rendezvous: &Rendezvous) -> Result<(), ClusterError> {
        let (store, path) = (&self.store, file(&self.store, &self.name));
        let fail = |error| ClusterError::Store(store.at(&path)(error));
        let text = serde_json::to_vec(rendezvous).map_err(ClusterError::tls)?;
        store.files().put_secret(&path, &text).map_err(fail)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        refusals::remove(&self.store, &self.name);
        retract(&self.store, &self.name, &self.run);
    }
}

/// Removes the file of a pool where it is that of a run, not of a driver that took over.
pub(super) fn retract(store: &Store, name: &str, run: &str) {
    let path = file(store, name);
    let own = store.read_at_most(&path, FILE_BYTES_MAX).ok().flatten();
    let own = own.and_then(|text| serde_json::from_slice::<Rendezvous>(&text).ok());
    if own.is_some_and(|own| own.run == run) {
        drop(store.files().remove(&path));
    }
}

/// What a driver needs to be found and believed: its keys, and what it tells its workers.
pub(super) fn announce(
    keys: &Keys,
    run: &str,
    (host, port): (&str, u16),
    authority: &Authority,
) -> Rendezvous {
    Rendezvous::new(run, (host, port), keys.in_file(authority))
}

#[cfg(test)]
mod tests {
    use super::owned;

    #[test]
    fn keys_are_of_this_user_or_of_root() {
        for mode in [0o600, 0o400] {
            assert!(owned(1000, 1000, mode).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o440, 0o400] {
            assert!(owned(1000, 0, mode).is_ok(), "{mode:o}");
        }
        for (user, owner, mode) in [
            (1000, 1000, 0o640),
            (1000, 1000, 0o604),
            (0, 0, 0o640),
            (1000, 0, 0o644),
            (1000, 0, 0o660),
            (1000, 1001, 0o600),
        ] {
            assert!(owned(user, owner, mode).is_err(), "{user} {owner} {mode:o}");
        }
    }
}
