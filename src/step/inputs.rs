//! Which raw files a day is made of, and whether they are those of what is published.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;

use crate::config::Config;
use crate::config::EventTime;
use crate::engine::ingest::RawFile;
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
use crate::table::hive::HOUR_MS;
use crate::table::hive::Layout;
use crate::table::period::Period;
use crate::table::period::Zone;

/// Files named so far from the period are not opened to ask for their time range.
const NAMED_FAR_MS: u64 = 25 * HOUR_MS;
/// HDFS closes the files of a writer that is gone after so long at the latest.
const OPEN_MAX: Duration = Duration::from_secs(3600);
/// So many files, the newest ones, are opened to see whether their writers have closed them.
const OPENED_MAX: usize = 64;
const WHOLE_BLOCKS: &str = "it has whole blocks, as a file between two of them has";
/// Settings that decide whether a day is published, not what is in it.
const JUDGES: [&str; 2] = ["ingest.settle", "ingest.rejects_max"];

/// The raw files that can hold events of a day or an hour.
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

/// Raw files of the landing folder, in the order of the times in their names; what a file notes of itself is asked once.
#[derive(Debug)]
pub struct Landings {
    listing: Listing,
    /// Time in the name, and index.
    by_time: Vec<(u64, usize)>,
    nameless: Vec<usize>,
    /// What each file notes of the times of its flows.
    noted: Vec<OnceLock<Option<(u64, u64)>>>,
    /// Files that are followed by another of their folder within the slack: they end there.
    is_short: Vec<bool>,
}

/// The listing of a run: made when it is first asked for, the same for all days of the run. Files that come later make a day
/// `changed` for the next run.
#[derive(Debug, Default)]
pub struct SharedLandings(Mutex<Option<Arc<Landings>>>);

impl SharedLandings {
    /// Returns the listing.
    ///
    /// # Errors
    /// The landing folder cannot be read; the next day tries again.
    pub fn get(
        &self,
        config: &Config,
        store: &Store,
        layout: &Layout,
    ) -> Result<Arc<Landings>, StoreError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landings) = &*shared {
            return Ok(Arc::clone(landings));
        }
        let landings = Arc::new(landed(config, store, layout)?);
        *shared = Some(Arc::clone(&landings));
        Ok(landings)
    }
}

/// Lists the landing folder.
///
/// # Errors
/// It cannot be read.
pub fn landed(config: &Config, store: &Store, layout: &Layout) -> Result<Landings, StoreError> {
    let listing = landing::list(store, &layout.landing())?;
    Ok(Landings::of(listing, config))
}

impl Landings {
    /// Sorts a listing.
    #[must_use]
    pub fn of(listing: Listing, config: &Config) -> Self {
        let zone = Zone::from(config.zone);
        let (mut by_time, mut nameless) = (Vec::new(), Vec::new());
        for (index, file) in listing.files.iter().enumerate() {
            match file.named {
                Some(named) => by_time.push((zone.first_ms(named), index)),
                None => nameless.push(index),
            }
        }
        by_time.sort_unstable();
        let mut landings = Self {
            noted: listing.files.iter().map(|_| OnceLock::new()).collect(),
            is_short: vec![false; listing.files.len()],
            listing,
            by_time,
            nameless,
        };
        landings.mark_short(config.ingest.slack_ms);
        landings
    }

    fn mark_short(&mut self, slack_ms: u64) {
        let mut next_of_folder: BTreeMap<&Path, u64> = BTreeMap::new();
        for &(time, index) in self.by_time.iter().rev() {
            let folder = self
                .listing
                .files
                .get(index)
                .and_then(|file| file.path.parent());
            let next = folder.and_then(|folder| next_of_folder.insert(folder, time));
            if let Some(is_short) = self.is_short.get_mut(index) {
                *is_short = next.is_some_and(|next| next > time && next - time <= slack_ms);
            }
        }
    }

    /// Files that are still being written, by their names.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let unfinished = self.listing.unfinished.iter();
        unfinished.map(|path| path.display().to_string()).collect()
    }

    /// Raw files that a run at this time would wait for or refuse, and why.
    #[must_use]
    pub fn growing(
        &self,
        config: &Config,
        store: &Store,
        now: SystemTime,
    ) -> BTreeMap<String, &'static str> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = |file: &Landed| now.saturating_sub(Duration::from_nanos(file.modified_ns));
        let settle = Duration::from_millis(config.ingest.settle_ms);
        let files = self.listing.files.iter();
        let mut young: Vec<_> = files.filter(|file| age(file) < OPEN_MAX).collect();
        young.sort_by_key(|file| Reverse(file.modified_ns));
        let newest = young.get(..OPENED_MAX).unwrap_or(&young);
        let is_open = parallel::map(AT_ONCE, newest, |file| {
            let opened = store.files().open(&file.path);
            opened.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        let mut growing = BTreeMap::new();
        for (index, file) in young.into_iter().enumerate() {
            let why = match is_open.get(index) {
                Some(true) => "its writer has not closed it",
                _ if file.is_whole_blocks => WHOLE_BLOCKS,
                _ if age(file) < settle => "it changed within ingest.settle",
                _ => continue,
            };
            growing.insert(file.path.display().to_string(), why);
        }
        growing
    }

    /// Files that can hold events of a time, by path.
    fn of_range(&self, config: &Config, store: &Store, range: &Range<u64>) -> Vec<&Landed> {
        let first = range.start.saturating_sub(NAMED_FAR_MS);
        let from = self.by_time.partition_point(|(time, _)| *time < first);
        let near = self.by_time.get(from..).unwrap_or_default().iter();
        let near = near.take_while(|(time, _)| *time < range.end.saturating_add(NAMED_FAR_MS));
        let near = near.map(|&(time, index)| (Some(time), index));
        let nameless = self.nameless.iter().map(|&index| (None, index));
        let found = near.chain(nameless);
        let mut found: Vec<_> = found
            .filter(|&(named_ms, index)| self.can_hold((config, store), (named_ms, index), range))
            .map(|(_, index)| index)
            .collect();
        found.sort_unstable();
        let files = found
            .into_iter()
            .filter_map(|index| self.listing.files.get(index));
        files.collect()
    }

    /// The time in the name with slack decides, where that is near and the file may be of a long time also the range that the collector
    /// noted; a file that says nothing is read for every period.
    fn can_hold(
        &self,
        (config, store): (&Config, &Store),
        (named_ms, index): (Option<u64>, usize),
        range: &Range<u64>,
    ) -> bool {
        let slack_ms = config.ingest.slack_ms;
        let meets = |first: u64, last: u64| first < range.end && last >= range.start;
        if let Some(named) = named_ms {
            if meets(
                named.saturating_sub(slack_ms),
                named.saturating_add(slack_ms),
            ) {
                return true;
            }
            if self.is_short.get(index) == Some(&true) {
                return false;
            }
        }
        // The range is that of flows, not of their receipt.
        if config.ingest.event_time == EventTime::Received {
            return named_ms.is_none();
        }
        match self.noted(store, index) {
            Some((first, last)) => meets(first, last),
            None => named_ms.is_none(),
        }
    }

    fn noted(&self, store: &Store, index: usize) -> Option<(u64, u64)> {
        let (file, noted) = (self.listing.files.get(index)?, self.noted.get(index)?);
        *noted.get_or_init(|| {
            let (open, bytes) = store.files().open(&file.path).ok()?;
            let noted = NfcapdFile::open(open, bytes).ok()?.statistics()?;
            let is_range = noted.first_ms > 0 && noted.first_ms <= noted.last_ms;
            is_range.then_some((noted.first_ms, noted.last_ms))
        })
    }
}

/// Finds the raw files of a day or an hour.
///
/// # Errors
/// There is none.
pub fn inputs_of(
    (config, store): (&Config, &Store),
    layout: &Layout,
    landings: &Landings,
    period: Period,
) -> Result<Inputs, StepError> {
    let range = period.range_ms(config.zone);
    let wanted = landings.of_range(config, store, &range);
    let unfinished = landings.unfinished();
    if wanted.is_empty() {
        return Err(StepError::NoInput(format!(
            "{}: no raw file for {period} ({} files of other times, {} still being written); put nfcapd files below it, or choose another --date",
            store.url(&layout.landing()),
            landings.listing.files.len(),
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
    let settings = config.texts.iter().filter(|(key, _)| is_of_content(key));
    let settings = settings.map(|(key, value)| format!("{key}={value}"));
    let parts: Vec<_> = texts
        .chain(settings)
        .chain([env!("CARGO_PKG_VERSION").to_owned()])
        .chain(period.hour.map(|hour| format!("hour {hour}")))
        .collect();
    Ok(Inputs {
        fingerprint: fingerprint(parts.iter().map(String::as_str)),
        files,
        unfinished,
        whole_blocks,
    })
}

/// True for settings that decide what is in the table.
fn is_of_content(key: &str) -> bool {
    key == "timezone" || (key.starts_with("ingest.") && !JUDGES.contains(&key))
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
            return Err(not_ready(path, WHOLE_BLOCKS.to_owned()));
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
