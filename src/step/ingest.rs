//! Raw files of a day to its partition of the raw table.

use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;

use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::FooterTail;
use parquet::file::metadata::ParquetMetaDataReader;
use serde_json::json;

use crate::config::Config;
use crate::engine::ingest::Counts;
use crate::engine::ingest::Part;
use crate::parallel;
use crate::step;
use crate::step::Context;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::Severity;
use crate::step::StepError;
use crate::step::day_table::DayTable;
use crate::step::decode::Totals;
use crate::step::decode::decode;
use crate::step::inputs::Inputs;
use crate::step::inputs::SharedLandings;
use crate::step::inputs::inputs_of;
use crate::step::inputs::vanished;
use crate::store::AT_ONCE;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::Store;
use crate::store::StoreError;
use crate::table::hive::Layout;
use crate::table::period::Period;

/// Name of the step.
pub const NAME: &str = "ingest";
/// Rejects that are told one by one.
const REJECTS_SHOWN: usize = 5;

/// Decodes and publishes a day.
///
/// # Errors
/// No input, input that changes, too many rejects, or the file system.
pub async fn run(context: &Context<'_>) -> Result<Outcome, StepError> {
    let Context {
        config,
        layout,
        period,
        ..
    } = *context;
    let store = context.store;
    let landings = context.landings.get(config, store, layout)?;
    let inputs = inputs_of((config, store), layout, &landings, period)?;
    let target = layout.raw(period);
    let name = staged_name(period);
    tell_unfinished(context.events, &inputs.unfinished);
    if !context.redo
        && let Some(kept) = keep_published(context, &inputs)?
    {
        return Ok(kept);
    }
    if let Some(adopted) = check_foreign(context, &inputs, &target)? {
        return Ok(adopted);
    }
    let totals = decode(context, &inputs).await?;
    check_rejects(config, &totals, inputs.bytes())?;
    check_emptied(context, &totals)?;
    verify(context.store, &context.staging.staged(&name), &totals)?;
    let manifest = manifest(&inputs, &totals);
    keep_gone_hours(context, &target, &context.staging.staged(&name))?;
    let folders = [(name.as_str(), target.as_path(), manifest.clone())];
    let done = context.staging.publish(context.lock, &folders)?;
    let place = store.url(&done.places.of(&target));
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
        "ingest: {read} records read = {kept} kept + {outside} of other times + {} rejected{}; files published: {} in {}{}",
        totals.counts.rejected_total(),
        step::by_reason(rejected),
        totals.parts.len(),
        place,
        step::absence(&done),
    ));
    let mut outcome = outcome(true, manifest, place);
    outcome.note(&done, context.work);
    Ok(outcome)
}

/// Returns the name under which a day or an hour is staged.
#[must_use]
pub fn staged_name(period: Period) -> String {
    let hour = period.hour.map(|hour| format!("-h{hour:02}"));
    format!("{NAME}{}", hour.unwrap_or_default())
}

/// Returns the hour of such a name; `None` for a day, or another name.
#[must_use]
pub fn staged_hour(name: &str) -> Option<u8> {
    name.strip_prefix(NAME)?.strip_prefix("-h")?.parse().ok()
}

/// Returns the manifest of a day that is there as one, or of an hour that was published alone.
///
/// # Errors
/// It cannot be looked at.
pub fn published(
    store: &Store,
    layout: &Layout,
    period: Period,
) -> Result<Option<Manifest>, StoreError> {
    match period.hour {
        Some(_) => {
            let places = Places::read(store, &layout.key(period.day))?;
            Manifest::read(store, &places.of(&layout.raw(period)))
        }
        None => Ok(DayTable::read(store, layout, period.day)?.and_then(|table| table.manifest)),
    }
}

/// Returns what is published where it is up to date; needs no lock.
///
/// # Errors
/// There is no raw file, or something cannot be looked at.
pub fn up_to_date(
    (config, store): (&Config, &Store),
    layout: &Layout,
    landings: &SharedLandings,
    period: Period,
) -> Result<Option<Outcome>, StepError> {
    let landings = landings.get(config, store, layout)?;
    let inputs = inputs_of((config, store), layout, &landings, period)?;
    let published = published(store, layout, period)?;
    let current = published.filter(|manifest| manifest.fingerprint == inputs.fingerprint);
    let Some(manifest) = current else {
        return Ok(None);
    };
    let place = place(store, layout, period)?;
    Ok(Some(outcome(false, manifest, place)))
}

/// Names raw files that are not read.
pub fn tell_unfinished(events: &dyn Events, unfinished: &[String]) {
    for path in unfinished {
        events.line(&format!("ingest: {path} is still being written, not read"));
    }
}

/// Where a day or an hour lies.
fn place(store: &Store, layout: &Layout, period: Period) -> Result<String, StoreError> {
    let places = Places::read(store, &layout.key(period.day))?;
    Ok(store.url(&places.of(&layout.raw(period))))
}

/// Returns what is published where it is up to date, or where raw files that it was made of are gone.
fn keep_published(context: &Context<'_>, inputs: &Inputs) -> Result<Option<Outcome>, StepError> {
    let (period, store, layout) = (context.period, context.store, context.layout);
    let Some(manifest) = published(store, layout, period)? else {
        return Ok(None);
    };
    let kept = |manifest: Manifest| -> Result<Outcome, StoreError> {
        Ok(outcome(false, manifest, place(store, layout, period)?))
    };
    if manifest.fingerprint == inputs.fingerprint {
        let current = kept(manifest)?;
        step::tell_up_to_date(context.events, period, &current);
        return Ok(Some(current));
    }
    let Some(gone) = vanished(store, &manifest)? else {
        return Ok(None);
    };
    context.events.line(&format!(
        "ingest: {period} is kept as published ({} rows): {gone} was read for it and is gone; --reprocess all makes it from what is left",
        manifest.rows
    ));
    Ok(Some(kept(manifest)?))
}

/// Keeps a folder that another tool has written, or takes its files as the table where that is asked for.
fn check_foreign(
    context: &Context<'_>,
    inputs: &Inputs,
    target: &Path,
) -> Result<Option<Outcome>, StepError> {
    let (store, period) = (context.store, context.period);
    if context.redo || !is_foreign(store, context.layout, period)? {
        return Ok(None);
    }
    let files = table_files(store, target)?;
    let Some(first) = files.first() else {
        return Ok(None);
    };
    if !context.adopt {
        return Err(StepError::Foreign {
            path: store.url(target),
            files: files.len(),
            first: first.0.clone(),
        });
    }
    let rows = parallel::map(AT_ONCE, &files, |(name, _)| {
        footer_rows(store, &target.join(name))
    });
    let mut totals = Totals::default();
    for ((path, bytes), rows) in files.into_iter().zip(rows) {
        let rows = u64::try_from(rows?).unwrap_or(0);
        totals.counts.kept += rows;
        totals.parts.push(Part { path, rows, bytes });
    }
    let manifest = manifest(inputs, &totals);
    let (name, staging) = (staged_name(period), context.staging);
    staging.adopt(context.lock, (&name, target), &manifest)?;
    context.events.line(&format!(
        "ingest: {period} is adopted as another tool has written it: {} rows in {} files",
        manifest.rows,
        totals.parts.len()
    ));
    Ok(Some(outcome(true, manifest, store.url(target))))
}

/// True where another tool has written files of a day or hour, and we have not.
///
/// # Errors
/// A folder or file cannot be looked at.
pub fn is_foreign(store: &Store, layout: &Layout, period: Period) -> Result<bool, StepError> {
    let target = layout.raw(period);
    let has_files = !table_files(store, &target)?.is_empty();
    Ok(has_files
        && Manifest::parse(store, &target)?.is_none()
        && DayTable::read(store, layout, period.day)?.is_none())
}

/// Table files below a folder of the table, with their lengths, by path; hidden ones are left out as Hive does.
fn table_files(store: &Store, folder: &Path) -> Result<Vec<(String, u64)>, StepError> {
    let mut files = Vec::new();
    let mut level = vec![folder.to_path_buf()];
    while let Some(next) = level.pop() {
        for entry in store.list(&next).map_err(store.at(&next))? {
            let below = entry.path.strip_prefix(folder).unwrap_or(&entry.path);
            match entry.name() {
                name if name.starts_with(['.', '_']) => {}
                _ if entry.is_folder => level.push(entry.path),
                _ => files.push((below.display().to_string(), entry.bytes)),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Readers who go by the metastore look into the folder of an hour that is gone until the metastore has dropped it: it is there, and
/// empty.
fn keep_gone_hours(context: &Context<'_>, target: &Path, staged: &Path) -> Result<(), StoreError> {
    let store = context.store;
    if context.period.hour.is_some() || store.is_versioned(target) {
        return Ok(());
    }
    for entry in store.list(target).map_err(store.at(target))? {
        if entry.is_folder && entry.name().starts_with("h=") {
            let folder = staged.join(entry.name());
            store
                .files()
                .make_folder(&folder)
                .map_err(store.at(&folder))?;
        }
    }
    Ok(())
}

fn outcome(published: bool, manifest: Manifest, target: String) -> Outcome {
    Outcome {
        step: NAME,
        published,
        seconds: 0.0,
        bytes: manifest.bytes(),
        rows: manifest.rows,
        outputs: vec![target],
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
    let shown = totals.rejects.iter().take(REJECTS_SHOWN);
    let shown = shown.map(|reject| format!("\n  {reject}")).collect();
    if !within(rejected, read) {
        return Err(StepError::Rejected {
            rejected,
            read,
            most,
            shown,
        });
    }
    if within(totals.unreadable_bytes, bytes) {
        return Ok(());
    }
    Err(StepError::Unreadable {
        unreadable: totals.unreadable_bytes,
        bytes,
        most,
        shown,
    })
}

/// Says so where files have records and none is of this time; a day that was full is not emptied by them unless that is asked for.
fn check_emptied(context: &Context<'_>, totals: &Totals) -> Result<(), StepError> {
    let outside = totals.counts.outside;
    if totals.counts.kept > 0 || outside == 0 {
        return Ok(());
    }
    let (period, event_time) = (context.period, context.config.ingest.event_time);
    let published = published(context.store, context.layout, period)?
        .filter(|manifest| manifest.rows > 0 && !context.redo);
    match published {
        Some(Manifest { rows, .. }) => Err(StepError::Emptied {
            period,
            outside,
            event_time,
            rows,
        }),
        None => {
            let text = format!(
                "ingest: none of {outside} records is of {period} by its time of {event_time} (ingest.event_time)"
            );
            context.events.tell(Severity::Warning, &text);
            Ok(())
        }
    }
}

/// Makes sure that every record is counted in one place, opens every written file, and compares the rows of its footer with what was
/// counted.
fn verify(store: &Store, folder: &Path, totals: &Totals) -> Result<(), StepError> {
    let counts = &totals.counts;
    let found = counts.kept + counts.outside + counts.rejected_total();
    if found != counts.read {
        return Err(StepError::Rows {
            what: NAME,
            found,
            wanted: counts.read,
        });
    }
    let rows = parallel::map(AT_ONCE, &totals.parts, |part| {
        footer_rows(store, &folder.join(&part.path))
    });
    for (part, found) in totals.parts.iter().zip(rows) {
        let found = found?;
        if u64::try_from(found) != Ok(part.rows) {
            return Err(StepError::Verify {
                path: store.url(&folder.join(&part.path)),
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
        path: store.url(folder),
        found: i64::try_from(written).unwrap_or(i64::MAX),
        wanted: totals.counts.kept,
    })
}

/// Returns the rows that the footer of a Parquet file announces.
fn footer_rows(store: &Store, path: &Path) -> Result<i64, StepError> {
    let damaged = |error| StepError::Parquet {
        path: store.url(path),
        error,
    };
    let (mut source, _) = store.files().open(path).map_err(store.at(path))?;
    let mut tail = [0; FOOTER_SIZE];
    let read = source
        .seek(SeekFrom::End(-(FOOTER_SIZE as i64)))
        .and_then(|_| source.read_exact(&mut tail));
    read.map_err(store.at(path))?;
    let footer = FooterTail::try_new(&tail).map_err(damaged)?;
    let length = footer.metadata_length() + FOOTER_SIZE;
    let from = i64::try_from(length).unwrap_or(i64::MAX);
    let mut metadata = vec![0; footer.metadata_length()];
    let read = source
        .seek(SeekFrom::End(-from))
        .and_then(|_| source.read_exact(&mut metadata));
    read.map_err(store.at(path))?;
    let metadata = ParquetMetaDataReader::decode_metadata(&metadata).map_err(damaged)?;
    Ok(metadata.file_metadata().num_rows())
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
