//! A worker that stays: it looks for drivers for ever and starts one child process for each run of one, so that memory goes back to the
//! system with the run, and whatever a task does to its process ends with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::config::Config;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth::build;
use crate::engine::cluster::children::ChildProcess;
use crate::engine::cluster::lazy::check_host;
use crate::engine::cluster::pool::Keys;
use crate::engine::cluster::pool::Rendezvous;
use crate::engine::cluster::refusals;
use crate::engine::cluster::seek::Look;
use crate::engine::cluster::seek::Seek;
use crate::engine::cluster::worker::Order;
use crate::store::Store;

/// A run that was left is tried again, but not at once.
const AGAIN: Duration = Duration::from_secs(15);
/// How long a child process may take to leave a driver that has finished.
const FINISHED: Duration = Duration::from_secs(2);
/// How often a child process is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Where and how a worker works.
#[derive(Clone, Debug)]
pub struct Where {
    /// Whose drivers it works for.
    pub seek: Seek,
    /// Tasks at a time.
    pub slots: usize,
    /// Memory of its plans.
    pub memory_bytes: u64,
    /// Folder for shuffles, what is spilled, and table files on their way.
    pub work_dir: PathBuf,
    /// How long tasks that run may go on when it is told to leave.
    pub grace: Duration,
}

/// What a worker is at.
#[derive(Debug, Default)]
pub struct Doing {
    /// True while it serves a driver.
    pub is_serving: AtomicBool,
    /// Set from outside: leave.
    pub is_leaving: AtomicBool,
    /// Driver runs that it has served, or tried to.
    pub runs: std::sync::atomic::AtomicU64,
    /// Looks for a driver that failed.
    pub errors: std::sync::atomic::AtomicU64,
}

/// Looks for drivers until it is told to leave.
///
/// # Errors
/// Keys that cannot be used, or a pool that nothing protects.
pub fn look_for_drivers(
    config: &Config,
    store: &Store,
    place: &Where,
    doing: &Doing,
    tell: fn(&str),
) -> Result<(), ClusterError> {
    let keys = Arc::new(Keys::find(&config.pool)?);
    match place.seek {
        Seek::Pool(_) => keys.check(store, &config.hadoop)?,
        Seek::Driver(..) => keys.check_own()?,
    }
    check_host(&config.cluster)?;
    tell(&format!(
        "looking for {}, warehouse {}",
        place.seek,
        store.url(store.root())
    ));
    let mut left: Option<(String, Instant)> = None;
    let mut told = String::new();
    while !doing.is_leaving.load(Ordering::Relaxed) {
        let look = Look::start(&place.seek, store, &keys, config.cluster.waits);
        let Some(found) = wait(&look, doing) else {
            break;
        };
        match found {
            Err(error) => {
                doing.errors.fetch_add(1, Ordering::Relaxed);
                tell_once(&mut told, &format!("{error}"), tell);
            }
            Ok(None) => told.clear(),
            Ok(Some(found)) if is_recent(left.as_ref(), &found.run) => {}
            Ok(Some(found)) if !found.is_same_build() => {
                let Rendezvous { run, .. } = &found;
                let text = format!(
                    "run {run}: its driver is {}, this is {} build {}: install the same program on all nodes and start this worker again",
                    found.program(),
                    env!("CARGO_PKG_VERSION"),
                    build()
                );
                if told != text
                    && let Seek::Pool(name) = &place.seek
                {
                    refusals::leave(store, name, run);
                }
                tell_once(&mut told, &text, tell);
            }
            Ok(Some(found)) => {
                told.clear();
                let run = found.run.clone();
                serve((config, store, &keys), found, place, doing, tell);
                left = Some((run, Instant::now()));
            }
        }
        pause(config.pool.poll, doing);
    }
    Ok(())
}

/// Waits for what is found; `None` where it is told to leave.
fn wait(look: &Look, doing: &Doing) -> Option<Result<Option<Rendezvous>, ClusterError>> {
    while !doing.is_leaving.load(Ordering::Relaxed) {
        if let Some(found) = look.result(TICK) {
            return Some(found);
        }
    }
    None
}

fn is_recent(left: Option<&(String, Instant)>, run: &str) -> bool {
    left.is_some_and(|(last, when)| last == run && when.elapsed() < AGAIN)
}

fn tell_once(told: &mut String, text: &str, tell: fn(&str)) {
    if told != text {
        tell(text);
        text.clone_into(told);
    }
}

/// Starts a child process for a run and waits for its end.
fn serve(
    (config, store, keys): (&Config, &Store, &Arc<Keys>),
    found: Rendezvous,
    place: &Where,
    doing: &Doing,
    tell: fn(&str),
) {
    doing.runs.fetch_add(1, Ordering::Relaxed);
    let run = found.run.clone();
    let folder = place.work_dir.join("run");
    let mut order = Order::new(config, found, (place.slots, place.memory_bytes), &folder);
    order.bind = config.cluster.bind;
    order
        .external_host
        .clone_from(&config.cluster.external_host);
    order.grace = place.grace;
    let mut child = match ChildProcess::start(&order) {
        Ok(child) => child,
        Err(error) => return tell(&format!("run {run}: {error}")),
    };
    doing.is_serving.store(true, Ordering::Relaxed);
    let (mut looked, mut look) = (Instant::now(), None);
    let ended = loop {
        if let Some(ended) = child.ended() {
            break ended.to_string();
        }
        if look.is_none() && looked.elapsed() > config.pool.poll * 2 {
            look = Some(Look::start(&place.seek, store, keys, config.cluster.waits));
        }
        if let Some(now) = look.as_ref().and_then(|look| look.result(Duration::ZERO)) {
            (looked, look) = (Instant::now(), None);
            if now.is_ok_and(|now| now.is_none_or(|now| now.run != run)) {
                child.leave(FINISHED);
                break "its driver has finished".to_owned();
            }
        }
        if doing.is_leaving.load(Ordering::Relaxed) {
            child.leave(place.grace + Duration::from_secs(3));
            break "told to leave".to_owned();
        }
        std::thread::sleep(TICK);
    };
    doing.is_serving.store(false, Ordering::Relaxed);
    // What a child that was killed has left.
    drop(std::fs::remove_dir_all(&folder));
    tell(&format!("run {run}: process {} ended, {ended}", child.id()));
}

/// Waits about so long; workers that were started together part.
fn pause(time: Duration, doing: &Doing) {
    let spread = time.mul_f64(f64::from(std::process::id() % 128) / 256.0);
    let start = Instant::now();
    while start.elapsed() < time + spread && !doing.is_leaving.load(Ordering::Relaxed) {
        std::thread::sleep(TICK.min(time + spread));
    }
}
