//! What a driver shows of itself for `klieg status`; nothing secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::engine::Stage;
use crate::engine::cluster::members::Members;
use crate::store::Store;
use crate::store::StoreError;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(2);

/// A driver that uses a pool, as it was seconds ago.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Driver {
    /// The pool.
    pub pool: String,
    /// The run of the driver.
    pub run: String,
    /// Its process.
    pub process: u32,
    /// Its version.
    pub version: String,
    /// Its workers.
    pub workers: Vec<serde_json::Value>,
    /// Stages of the plans that run.
    pub stages: Vec<serde_json::Value>,
}

/// Stages by job.
type Stages = BTreeMap<String, Vec<Stage>>;

/// Writes it every few seconds until it is dropped.
pub(super) struct Board {
    stages: Arc<Mutex<Stages>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn folder(store: &Store) -> PathBuf {
    store.work_area().join("drivers")
}

fn path(store: &Store, pool: &str) -> PathBuf {
    folder(store).join(format!("{pool}.json"))
}

impl Board {
    pub(super) fn start(store: &Store, (pool, run): (&str, &str), members: Arc<Members>) -> Self {
        let stages: Arc<Mutex<Stages>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (store, pool, run) = (store.clone(), pool.to_owned(), run.to_owned());
        let (shown, over) = (Arc::clone(&stages), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let path = path(&store, &pool);
            // The next writing fails too, where this does.
            drop(store.files().make_folder(&folder(&store)));
            let mut slept = EVERY;
            while !over.load(Ordering::Relaxed) {
                if slept >= EVERY {
                    slept = Duration::ZERO;
                    let stages = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let board = Driver {
                        pool: pool.clone(),
                        run: run.clone(),
                        process: std::process::id(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        workers: members
                            .list()
                            .iter()
                            .map(|member| serde_json::json!(member))
                            .collect(),
                        stages: stages
                            .values()
                            .flatten()
                            .map(|stage| serde_json::json!(stage))
                            .collect(),
                    };
                    // Shown to people only: the next one is written anyway.
                    let text = serde_json::to_vec(&board).unwrap_or_default();
                    drop(store.files().put(&path, &text));
                }
                std::thread::sleep(Duration::from_millis(100));
                slept += Duration::from_millis(100);
            }
            remove(&store, &pool);
        });
        Self {
            stages,
            is_over,
            thread: Some(thread),
        }
    }

    pub(super) fn set_stages(&self, job: &str, stages: &[Stage]) {
        let mut shown = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(job.to_owned(), stages.to_vec());
    }

    pub(super) fn forget(&self, job: &str) {
        let mut shown = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        shown.remove(job);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Lets nobody see a driver any more that stops at once.
pub(super) fn remove(store: &Store, pool: &str) {
    drop(store.files().remove(&path(store, pool)));
}

/// What others could have written there is not read beyond so many bytes: a thousand workers take half of them.
const BYTES_MAX: u64 = 1 << 20;

/// Returns what drivers have left of themselves in a warehouse, by pool; one that was killed is among them.
///
/// # Errors
/// The folder cannot be listed, or a file cannot be read.
pub fn drivers(store: &Store) -> Result<Vec<Driver>, StoreError> {
    let folder = folder(store);
    let mut found: Vec<Driver> = Vec::new();
    for entry in store.list(&folder).map_err(store.at(&folder))? {
        if entry.name().ends_with(".json")
            && entry.bytes <= BYTES_MAX
            && let Some(text) = store.read(&entry.path).map_err(store.at(&entry.path))?
            && let Ok(board) = serde_json::from_slice(&text)
        {
            found.push(board);
        }
    }
    Ok(found)
}
