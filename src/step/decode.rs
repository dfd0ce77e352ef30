//! Raw files of a day or an hour to staged table files.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::error::DataFusionError;

use crate::engine::Progress;
use crate::engine::ingest::Counts;
use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Part;
use crate::engine::ingest::Reject;
use crate::engine::ingest::SplitReport;
use crate::engine::pieces;
use crate::engine::splits;
use crate::step::Context;
use crate::step::StepError;
use crate::step::Unit;
use crate::step::ingest::NAME;
use crate::step::ingest::staged_name;
use crate::step::inputs::Inputs;
use crate::step::inputs::settle;
use crate::table::period::Zone;

/// Rejects that are kept for each reason.
const REJECTS_KEPT: usize = 1000;

/// Everything the splits reported.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) files: Vec<(String, Counts)>,
    pub(super) parts: Vec<Part>,
    pub(super) rejects: Vec<Reject>,
    pub(super) unreadable_bytes: u64,
    pub(super) unmapped: u64,
    pub(super) unknown: u64,
}

impl Totals {
    fn add(&mut self, report: SplitReport) {
        for (_, counts) in &report.files {
            self.counts.add(counts);
        }
        for (path, counts) in report.files {
            match self.files.last_mut() {
                // Pieces of one file follow each other.
                Some((last, of_file)) if *last == path => of_file.add(&counts),
                _ => self.files.push((path, counts)),
            }
        }
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

/// Decodes the inputs into the staging folder.
pub(super) async fn decode(context: &Context<'_>, inputs: &Inputs) -> Result<Totals, StepError> {
    let Context { config, period, .. } = *context;
    let store = context.store;
    settle(store, inputs, config.ingest.settle_ms, (context.now)())?;
    let splits =
        pieces::cut(store, &inputs.files, config.ingest.split_bytes).map_err(StepError::Ingest)?;
    context.events.line(&format!(
        "ingest: {period}, files: {}, bytes: {}, splits: {}",
        inputs.files.len(),
        inputs.bytes(),
        splits.len(),
    ));
    let (name, range) = (staged_name(period), period.range_ms(config.zone));
    let tag: String = inputs.fingerprint.chars().take(8).collect();
    let offsets = Zone::from(config.zone).offsets(&range);
    let spec = |number: u32, threads: NonZeroUsize| -> Result<IngestSpec, DataFusionError> {
        let made = context.staging.begin_try(&name, number);
        let (spool, staged) = made.map_err(|error| DataFusionError::External(error.into()))?;
        Ok(IngestSpec {
            offsets: offsets.clone(),
            start_ms: range.start,
            end_ms: range.end,
            has_hour_folders: period.hour.is_none(),
            event_time: config.ingest.event_time,
            staging: spool.display().to_string(),
            deliver: (!store.is_local()).then(|| staged.display().to_string()),
            tag: tag.clone(),
            threads,
        })
    };
    let tell = |line: &str| context.events.line(&format!("ingest: {period}: {line}"));
    let mut totals = Totals::default();
    let progress = Arc::new(Progress::default());
    let work = splits::ingest(context.engine, &spec, &splits, &progress, &tell);
    let label = format!("ingest: {period}");
    let done = context
        .watched(&label, (inputs.bytes(), Unit::Bytes), (&progress, work))
        .await;
    context.work.note(NAME, &progress);
    let (reports, number) = done.map_err(StepError::of_plan)?;
    context.staging.take_try(&name, number)?;
    reports.into_iter().for_each(|report| totals.add(report));
    totals.cut();
    Ok(totals)
}
