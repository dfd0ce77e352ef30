//! Raw files of a day to its partition of the raw table.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use parquet::file::reader::FileReader as _;
use parquet::file::reader::SerializedFileReader;
use serde_json::json;

use crate::config::Config;
use crate::config::EventTime;
use crate::engine::ingest::Counts;
use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Part;
use crate::engine::ingest::RawFile;
use crate::engine::ingest::Reject;
use crate::engine::ingest::Split;
use crate::engine::ingest::SplitReport;
use crate::engine::source::NfcapdFile;
use crate::step::Context;
use crate::step::Outcome;
use crate::step::StepError;
use crate::step::Unit;
use crate::store::Manifest;
use crate::store::fingerprint;
use crate::store::landing;
use crate::store::landing::Landed;
use crate::store::landing::Listing;
use crate::table::hive::DAY_MS;
use crate::table::hive::Day;
use crate::table::hive::HOUR_MS;
use crate::table::hive::Layout;

/// Name of the step.
pub const NAME: &str = "ingest";
/// Files named so far from the day are not opened to ask for their time range.
const NAMED_FAR_MS: u64 = 25 * HOUR_MS;
/// Rejects that are told one by one.
const REJECTS_SHOWN: usize = 5;
/// Settings that decide whether a day is published, not what is in it.
const JUDGES: [&str; 2] = ["ingest.settle", "ingest.rejects_max"];
/// Rejects that are kept for each reason.
const REJECTS_KEPT: usize = 1000;

/// The raw files that can hold events of a day.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// By path.
    pub files: Vec<RawFile>,
    /// Files that are still being written, by their names.
    pub unfinished: Vec<String>,
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
pub fn inputs(config: &Config, layout: &Layout, day: Day) -> Result<Inputs, StepError> {
    inputs_of(config, layout, &landed(layout)?, day)
}

/// Lists the landing folder.
///
/// # Errors
/// It cannot be read.
pub fn landed(layout: &Layout) -> Result<Listing, StepError> {
    landing::list(&layout.landing()).map_err(|(path, error)| StepError::Io {
        path: path.display().to_string(),
        error,
    })
}

/// Finds the raw files of a day in a listing.
///
/// # Errors
/// There is none.
pub fn inputs_of(
    config: &Config,
    layout: &Layout,
    listing: &Listing,
    day: Day,
) -> Result<Inputs, StepError> {
    let (slack_ms, event_time) = (config.ingest.slack_ms, config.ingest.event_time);
    let (wanted, others): (Vec<_>, Vec<_>) = listing
        .files
        .iter()
        .partition(|file| can_hold(file, day, slack_ms, event_time));
    let unfinished: Vec<_> = listing
        .unfinished
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if wanted.is_empty() {
        return Err(StepError::NoInput(format!(
            "{}: no raw file for {day} ({} files of other days, {} still being written); put nfcapd files below it, or choose another --date",
            layout.landing().display(),
            others.len(),
            unfinished.len(),
        )));
    }
    let raw = |file: &Landed| RawFile {
        path: file.path.display().to_string(),
        bytes: file.bytes,
        modified_ns: file.modified_ns,
    };
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
    })
}

/// The time in the name with slack decides, where that is near the day also the range that the collector noted; a file that
/// says nothing is read for every day.
fn can_hold(file: &Landed, day: Day, slack_ms: u64, event_time: EventTime) -> bool {
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
    let opened = File::open(&file.path).ok();
    let statistics = opened.and_then(|open| NfcapdFile::open(open, file.bytes).ok()?.statistics());
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
/// A file changes meanwhile.
pub fn settle(files: &[RawFile], settle_ms: u64, now: SystemTime) -> Result<(), StepError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let youngest = files.iter().map(|file| file.modified_ns).max().unwrap_or(0);
    let settled = Duration::from_nanos(youngest) + Duration::from_millis(settle_ms);
    let wait = settled
        .saturating_sub(now)
        .min(Duration::from_millis(settle_ms));
    std::thread::sleep(wait);
    for file in files {
        let io = |error| StepError::Io {
            path: file.path.clone(),
            error,
        };
        let metadata = std::fs::metadata(&file.path).map_err(io)?;
        let modified = metadata
            .modified()
            .map_err(io)?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        if metadata.len() != file.bytes || modified.as_nanos() != u128::from(file.modified_ns) {
            let what = format!("{} bytes, then {}", file.bytes, metadata.len());
            return Err(StepError::NotReady {
                path: file.path.clone(),
                what,
            });
        }
    }
    Ok(())
}

/// Returns a raw file that a published day was made of and that is not there any more.
#[must_use]
pub fn vanished(manifest: &Manifest) -> Option<String> {
    let inputs = manifest.report["inputs"].as_array()?;
    let mut paths = inputs.iter().filter_map(|input| input["path"].as_str());
    let gone = |path: &&str| Path::new(path).try_exists().is_ok_and(|exists| !exists);
    paths.find(gone).map(str::to_owned)
}

/// Everything the splits reported.
#[derive(Default)]
struct Totals {
    counts: Counts,
    files: Vec<(String, Counts)>,
    parts: Vec<Part>,
    rejects: Vec<Reject>,
    unreadable_bytes: u64,
    unmapped: u64,
    unknown: u64,
}

impl Totals {
    fn add(&mut self, report: SplitReport) {
        for (_, counts) in &report.files {
            self.counts.add(counts);
        }
        self.files.extend(report.files);
        self.parts.extend(report.parts);
        self.rejects.extend(report.rejects);
        self.unreadable_bytes += report.unreadable_bytes;
        self.unmapped += report.unmapped;
        self.unknown += report.unknown;
    }

    /// Keeps the first rejects of each reason.
    fn cut(&mut self) {
        let mut kept: BTreeMap<String, usize> = BTreeMap::new();
        self.rejects.retain(|reject| {
            let count = kept.entry(reject.reason.clone()).or_default();
            *count += 1;
            *count <= REJECTS_KEPT
        });
    }
}

/// Decodes and publishes a day.
///
/// # Errors
/// No input, input that changes, too many rejects, or the file system.
pub async fn run(context: &Context<'_>) -> Result<Outcome, StepError> {
    let Context {
        config,
        layout,
        day,
        ..
    } = *context;
    let inputs = inputs(config, layout, day)?;
    let target = layout.day(day);
    for path in &inputs.unfinished {
        context
            .events
            .line(&format!("ingest: {path} is still being written, not read"));
    }
    if let Some(kept) = keep_published(context, &inputs, &target) {
        return Ok(kept);
    }
    let totals = decode(context, &inputs).await?;
    check_rejects(config, &totals, inputs.bytes())?;
    check_emptied(context, &totals, &target)?;
    let folder = context.staging.folder(NAME)?;
    verify(&folder, &totals)?;
    let manifest = manifest(&inputs, &totals);
    let folders = [(NAME, target.as_path(), manifest.clone())];
    context.staging.publish(&folders)?;
    let Counts {
        read,
        kept,
        outside,
        rejected,
    } = &totals.counts;
    for reject in totals.rejects.iter().take(REJECTS_SHOWN) {
        context.events.line(&format!("ingest: rejected: {reject}"));
    }
    context.events.line(&format!(
        "ingest: {read} records read = {kept} kept + {outside} of other days + {} rejected {rejected:?}; {} files published in {}",
        totals.counts.rejected_total(),
        totals.parts.len(),
        target.display(),
    ));
    Ok(outcome(true, manifest, &target))
}

/// Returns the published day where it is up to date, or where raw files that it was made of are gone.
fn keep_published(context: &Context<'_>, inputs: &Inputs, target: &Path) -> Option<Outcome> {
    let day = context.day;
    let published = Manifest::read(target).filter(|_| !context.redo);
    if let Some(manifest) = &published
        && let Some(gone) = vanished(manifest)
    {
        context.events.line(&format!(
            "ingest: {day} is kept as published ({} rows): {gone} was read for it and is gone; --reprocess all makes the day from what is left",
            manifest.rows
        ));
        return Some(outcome(false, manifest.clone(), target));
    }
    if let Some(manifest) = published
        && manifest.fingerprint == inputs.fingerprint
    {
        context.events.line(&format!(
            "ingest: {day} is up to date ({} rows), skipped",
            manifest.rows
        ));
        return Some(outcome(false, manifest, target));
    }
    None
}

/// Decodes the inputs into the staging folder.
async fn decode(context: &Context<'_>, inputs: &Inputs) -> Result<Totals, StepError> {
    let Context { config, day, .. } = *context;
    settle(&inputs.files, config.ingest.settle_ms, (context.now)())?;
    let splits = splits(&inputs.files, config.ingest.split_bytes);
    context.events.line(&format!(
        "ingest: {day}, {} files, {} bytes, {} splits",
        inputs.files.len(),
        inputs.bytes(),
        splits.len(),
    ));
    let spec = IngestSpec {
        day_start_ms: day.start_ms(),
        event_time: config.ingest.event_time,
        staging: context.staging.folder(NAME)?.display().to_string(),
        tag: inputs.fingerprint.chars().take(8).collect(),
        threads: config.threads,
    };
    let mut totals = Totals::default();
    let work = context.engine.ingest(spec, &splits);
    let label = format!("ingest: {day}");
    let reports = context
        .watched(&label, (inputs.bytes(), Unit::Bytes), work)
        .await;
    let reports = reports.map_err(StepError::of_plan)?;
    reports.into_iter().for_each(|report| totals.add(report));
    totals.cut();
    Ok(totals)
}

fn outcome(published: bool, manifest: Manifest, target: &Path) -> Outcome {
    Outcome {
        step: NAME,
        published,
        rows: manifest.rows,
        outputs: vec![target.to_path_buf()],
        report: manifest.report,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn check_rejects(config: &Config, totals: &Totals, bytes: u64) -> Result<(), StepError> {
    let rejected = totals.counts.rejected_total();
    let read = totals.counts.read;
    // Nobody knows how many records an unreadable file has: it weighs by its bytes.
    let most = config.ingest.rejects_max;
    let within = |part: u64, whole: u64| part as f64 <= most * whole as f64;
    if within(rejected, read) && within(totals.unreadable_bytes, bytes) {
        return Ok(());
    }
    let first = totals.rejects.first().map(Reject::to_string);
    Err(StepError::Rejected {
        rejected,
        read,
        most,
        first: first.unwrap_or_default(),
    })
}

/// Says so where files have records and none is of this day; a day that was full is not emptied by them unless that is asked for.
fn check_emptied(context: &Context<'_>, totals: &Totals, target: &Path) -> Result<(), StepError> {
    let outside = totals.counts.outside;
    if totals.counts.kept > 0 || outside == 0 {
        return Ok(());
    }
    let (day, event_time) = (context.day, context.config.ingest.event_time);
    let published = Manifest::read(target).filter(|manifest| manifest.rows > 0 && !context.redo);
    match published {
        Some(Manifest { rows, .. }) => Err(StepError::Emptied {
            day,
            outside,
            event_time,
            rows,
        }),
        None => {
            context.events.line(&format!(
                "ingest: warning: none of {outside} records is of {day} by its time of {event_time} (ingest.event_time)"
            ));
            Ok(())
        }
    }
}

/// Opens every written file and compares the rows of its footer with what was counted.
fn verify(folder: &Path, totals: &Totals) -> Result<(), StepError> {
    for part in &totals.parts {
        let path = folder.join(&part.path);
        let name = || path.display().to_string();
        let file = File::open(&path).map_err(|error| StepError::Io {
            path: name(),
            error,
        })?;
        let reader = SerializedFileReader::new(file);
        let reader = reader.map_err(|error| StepError::Parquet {
            path: name(),
            error,
        })?;
        let found = reader.metadata().file_metadata().num_rows();
        if u64::try_from(found) != Ok(part.rows) {
            return Err(StepError::Verify {
                path: name(),
                found,
                wanted: part.rows,
            });
        }
    }
    let written: u64 = totals.parts.iter().map(|part| part.rows).sum();
    if written == totals.counts.kept {
        return Ok(());
    }
    Err(StepError::Verify {
        path: folder.display().to_string(),
        found: i64::try_from(written).unwrap_or(i64::MAX),
        wanted: totals.counts.kept,
    })
}

fn manifest(inputs: &Inputs, totals: &Totals) -> Manifest {
    let files = totals
        .parts
        .iter()
        .map(|part| (part.path.clone(), part.bytes));
    Manifest {
        step: NAME.to_owned(),
        fingerprint: inputs.fingerprint.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        files: files.collect(),
        rows: totals.counts.kept,
        report: json!({
            "counts": totals.counts,
            "inputs": inputs.files,
            "files": totals.files,
            "parts": totals.parts,
            "rejects": totals.rejects,
            "records_without_extension_map": totals.unmapped,
            "elements_of_other_kinds": totals.unknown,
        }),
    }
}
