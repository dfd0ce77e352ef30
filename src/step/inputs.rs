//! Which raw files a day is made of, and whether they are those of what is published.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;

use crate::config::Config;
use crate::config::EventTime;
use crate::engine::ingest::RawFile;
use crate::engine::ingest::Split;
use crate::engine::source::NfcapdFile;
use crate::parallel;
use crate::step::StepError;
use crate::store::AT_ONCE;
use crate::store::Manifest;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::fingerprint;
use crate::store::landing;
use crate::store::landing::Landed;
use crate::store::landing::Listing;
use crate::table::hive::DAY_MS;
use crate::table::hive::Day;
use crate::table::hive::HOUR_MS;
use crate::table::hive::Layout;

/// Files named so far from the day are not opened to ask for their time range.
const NAMED_FAR_MS: u64 = 25 * HOUR_MS;
/// HDFS closes the files of a writer that is gone after so long at the latest.
const OPEN_MAX: Duration = Duration::from_secs(3600);
/// Settings that decide whether a day is published, not what is in it.
const JUDGES: [&str; 2] = ["ingest.settle", "ingest.rejects_max"];

/// The raw files that can hold events of a day.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// By path.
    pub files: Vec<RawFile>,
    /// Files that are still being written, by their names.
    pub unfinished: Vec<String>,
    /// Files whose writers may stand between two blocks, and when they were last changed, nanoseconds since 1970.
    pub whole_blocks: Vec<(String, u64)>,
    /// Hash of files, settings and code.
    pub fingerprint: String,
}

impl Inputs {
    /// Returns their length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Finds the raw files of a day.
///
/// # Errors
/// The landing folder cannot be read, or holds no file for this day.
pub fn inputs(
    config: &Config,
    store: &Store,
    layout: &Layout,
    day: Day,
) -> Result<Inputs, StepError> {
    inputs_of((config, store), layout, &landed(store, layout)?, day)
}

/// Lists the landing folder.
///
/// # Errors
/// It cannot be read.
pub fn landed(store: &Store, layout: &Layout) -> Result<Listing, StoreError> {
    landing::list(store, &layout.landing())
}

/// Finds the raw files of a day in a listing.
///
/// # Errors
/// There is none.
pub fn inputs_of(
    (config, store): (&Config, &Store),
    layout: &Layout,
    listing: &Listing,
    day: Day,
) -> Result<Inputs, StepError> {
    let (slack_ms, event_time) = (config.ingest.slack_ms, config.ingest.event_time);
    let (wanted, others): (Vec<_>, Vec<_>) = listing
        .files
        .iter()
        .partition(|file| can_hold(store, file, day, (slack_ms, event_time)));
    let unfinished: Vec<_> = listing
        .unfinished
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if wanted.is_empty() {
        return Err(StepError::NoInput(format!(
            "{}: no raw file for {day} ({} files of other days, {} still being written); put nfcapd files below it, or choose another --date",
            store.url(&layout.landing()),
            others.len(),
            unfinished.len(),
        )));
    }
    let raw = |file: &Landed| RawFile {
        path: file.path.display().to_string(),
        bytes: file.bytes,
        modified_ns: file.modified_ns,
    };
    let doubtful = wanted.iter().filter(|file| file.is_whole_blocks);
    let whole_blocks = doubtful.map(|file| (file.path.display().to_string(), file.modified_ns));
    let whole_blocks = whole_blocks.collect();
    let files: Vec<RawFile> = wanted.into_iter().map(raw).collect();
    let texts = files
        .iter()
        .map(|file| format!("{}\t{}\t{}", file.path, file.bytes, file.modified_ns));
    let settings = config
        .texts
        .iter()
        .filter(|(key, _)| key.starts_with("ingest.") && !JUDGES.contains(&key.as_str()));
    let settings = settings.map(|(key, value)| format!("{key}={value}"));
    let parts: Vec<_> = texts
        .chain(settings)
        .chain([env!("CARGO_PKG_VERSION").to_owned()])
        .collect();
    Ok(Inputs {
        fingerprint: fingerprint(parts.iter().map(String::as_str)),
        files,
        unfinished,
        whole_blocks,
    })
}

/// The time in the name with slack decides, where that is near the day also the range that the collector noted; a file that
/// says nothing is read for every day.
fn can_hold(
    store: &Store,
    file: &Landed,
    day: Day,
    (slack_ms, event_time): (u64, EventTime),
) -> bool {
    let (start, end) = (day.start_ms(), day.start_ms() + DAY_MS);
    let meets = |first: u64, last: u64| first < end && last >= start;
    if let Some(named) = file.named_ms {
        if meets(
            named.saturating_sub(slack_ms),
            named.saturating_add(slack_ms),
        ) {
            return true;
        }
        if !meets(
            named.saturating_sub(NAMED_FAR_MS),
            named.saturating_add(NAMED_FAR_MS),
        ) {
            return false;
        }
    }
    // The range is that of flows, not of their receipt.
    if event_time == EventTime::Received {
        return file.named_ms.is_none();
    }
    let opened = store.files().open(&file.path).ok();
    let statistics =
        opened.and_then(|(open, bytes)| NfcapdFile::open(open, bytes).ok()?.statistics());
    match statistics {
        Some(noted) if noted.first_ms > 0 && noted.first_ms <= noted.last_ms => {
            meets(noted.first_ms, noted.last_ms)
        }
        _ => file.named_ms.is_none(),
    }
}

/// Groups consecutive files to splits of about `split_bytes`.
#[must_use]
pub fn splits(files: &[RawFile], split_bytes: u64) -> Vec<Split> {
    let mut splits: Vec<Split> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let is_full = bytes > 0 && bytes + file.bytes > split_bytes;
        match splits.last_mut() {
            Some(split) if !is_full => {
                split.files.push(file.clone());
                bytes += file.bytes;
            }
            _ => {
                let id = u32::try_from(splits.len()).unwrap_or(u32::MAX);
                splits.push(Split {
                    id,
                    files: vec![file.clone()],
                });
                bytes = file.bytes;
            }
        }
    }
    splits
}

/// Waits until every file is as old as `settle_ms`.
///
/// # Errors
/// A file changes meanwhile, or its writer may stand between two blocks.
pub fn settle(
    store: &Store,
    inputs: &Inputs,
    settle_ms: u64,
    now: SystemTime,
) -> Result<(), StepError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let files = &inputs.files;
    let youngest = files.iter().map(|file| file.modified_ns).max().unwrap_or(0);
    let settled = Duration::from_nanos(youngest) + Duration::from_millis(settle_ms);
    let wait = settled
        .saturating_sub(now)
        .min(Duration::from_millis(settle_ms));
    std::thread::sleep(wait);
    let not_ready = |path: &str, what: String| StepError::NotReady {
        path: path.to_owned(),
        what,
    };
    for (path, modified_ns) in &inputs.whole_blocks {
        if Duration::from_nanos(*modified_ns) + OPEN_MAX > now {
            let what = "it has whole blocks, as a file between two of them has";
            return Err(not_ready(path, what.to_owned()));
        }
    }
    let statuses = parallel::map(AT_ONCE, files, |file| {
        store.files().status(Path::new(&file.path))
    });
    for (file, status) in files.iter().zip(statuses) {
        let entry = status.map_err(store.at(Path::new(&file.path)))?;
        let now = entry.map(|entry| (entry.bytes, entry.modified_ns));
        if now != Some((file.bytes, file.modified_ns)) {
            let bytes = now.map_or(0, |(bytes, _)| bytes);
            let what = format!("{} bytes, then {bytes}", file.bytes);
            return Err(not_ready(&file.path, what));
        }
    }
    Ok(())
}

/// Returns a raw file that a published day was made of and that is not there any more.
///
/// # Errors
/// A file cannot be looked at.
pub fn vanished(store: &Store, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let inputs = manifest.report["inputs"].as_array().into_iter().flatten();
    let paths: Vec<&str> = inputs.filter_map(|input| input["path"].as_str()).collect();
    let statuses = parallel::map(AT_ONCE, &paths, |path| {
        store.files().status(Path::new(path))
    });
    for (path, status) in paths.iter().zip(statuses) {
        if status.map_err(store.at(Path::new(path)))?.is_none() {
            return Ok(Some((*path).to_owned()));
        }
    }
    Ok(None)
}

/// Says what differs from what a published day was made of.
#[must_use]
pub fn change(manifest: &Manifest, inputs: &Inputs) -> String {
    let published = manifest.report["inputs"].as_array().into_iter().flatten();
    let mut before: BTreeMap<&str, &Value> = published
        .filter_map(|input| Some((input["path"].as_str()?, input)))
        .collect();
    let (mut new, mut other) = (Vec::new(), Vec::new());
    for file in &inputs.files {
        match before.remove(file.path.as_str()) {
            None => new.push(file.path.as_str()),
            Some(input) if *input != json!(file) => other.push(file.path.as_str()),
            Some(_) => {}
        }
    }
    let none = (new.len(), other.len(), before.len()) == (0, 0, 0);
    if none && manifest.version != env!("CARGO_PKG_VERSION") {
        return format!("published by version {}", manifest.version);
    }
    if none {
        return "settings of ingest changed".to_owned();
    }
    let first = new.iter().chain(&other).chain(before.keys()).next();
    format!(
        "raw files: {} new, {} changed, {} no longer of this day, the first {}",
        new.len(),
        other.len(),
        before.len(),
        first.unwrap_or(&"")
    )
}
