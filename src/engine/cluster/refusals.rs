//! What workers of another build leave for the driver to read, since they cannot dial it: a small file each beside the pool file.

use serde::Deserialize;
use serde::Serialize;

use crate::engine::cluster::auth::build;
use crate::engine::cluster::pool;
use crate::store::Store;
use crate::store::files::Entry;

/// Files that a driver reads at most, bytes of one, and characters of a text of it: anybody may have written them who can write to the
/// warehouse.
const FILES_READ: usize = 20;
const FILE_BYTES_MAX: u64 = 4096;
const TEXT_MAX: usize = 100;

/// A worker that does not work for a run.
#[derive(Deserialize, Serialize)]
struct Refusal {
    run: String,
    host: String,
    process: u32,
    version: String,
    build: String,
}

fn prefix(pool: &str) -> String {
    format!("{pool}.refused-")
}

/// Leaves word that this worker is of another build than the driver of a run. A failure is not told: the worker's own log says all.
pub(super) fn leave(store: &Store, pool: &str, run: &str) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = plain(&host);
    let process = std::process::id();
    let path = pool::folder(store).join(format!("{}{host}-{process}", prefix(pool)));
    let refusal = Refusal {
        run: run.to_owned(),
        host,
        process,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: build().to_owned(),
    };
    let text = serde_json::to_vec(&refusal).unwrap_or_default();
    drop(store.files().put(&path, &text));
}

/// Returns what workers have left for a run.
pub(super) fn list(store: &Store, (pool, run): (&str, &str)) -> Vec<String> {
    let files = files(store, pool).into_iter();
    let small = files.filter(|entry| entry.bytes <= FILE_BYTES_MAX);
    let small = small.take(FILES_READ);
    let texts = small.filter_map(|entry| store.read(&entry.path).ok().flatten());
    let refusals = texts.filter_map(|text| serde_json::from_slice::<Refusal>(&text).ok());
    refusals
        .filter(|refusal| refusal.run == run)
        .map(|refusal| {
            let who = format!("{} on {}", refusal.process, plain(&refusal.host));
            differ(
                &who,
                &format!(
                    "{} build {}",
                    plain(&refusal.version),
                    plain(&refusal.build)
                ),
            )
        })
        .collect()
}

/// Says that a worker that has called is of another build.
pub(super) fn of_caller((address, other): &(String, String)) -> String {
    differ(
        &format!("at {address}"),
        &format!("of build {}", plain(other)),
    )
}

fn differ(who: &str, what: &str) -> String {
    format!(
        "worker {who} is klieg {what}, this is {} build {}: install the same program on all nodes",
        env!("CARGO_PKG_VERSION"),
        build()
    )
}

/// Removes what workers have left for earlier runs.
pub(super) fn remove(store: &Store, pool: &str) {
    for entry in files(store, pool) {
        drop(store.files().remove(&entry.path));
    }
}

fn files(store: &Store, pool: &str) -> Vec<Entry> {
    let mut entries = store.list(&pool::folder(store)).unwrap_or_default();
    entries.retain(|entry| entry.name().starts_with(&prefix(pool)));
    entries
}

/// A text of someone else, fit for a terminal.
fn plain(text: &str) -> String {
    let allowed = |symbol: &char| symbol.is_ascii_alphanumeric() || "-._+".contains(*symbol);
    text.chars().filter(allowed).take(TEXT_MAX).collect()
}
