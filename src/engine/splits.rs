//! The plan that decodes splits: each is a row, its report is another.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;

use crate::engine::Engine;
use crate::engine::Progress;
use crate::engine::ingest::IngestError;
use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Split;
use crate::engine::ingest::SplitReport;
use crate::engine::pieces;
use crate::engine::task;
use crate::engine::task::Done;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;

/// Makes the spec of a try, whose files lie apart from those of others, for so many threads a split.
pub type SpecOf<'a> =
    dyn Fn(u32, NonZeroUsize) -> Result<IngestSpec, DataFusionError> + Send + Sync + 'a;

/// Decodes and writes splits; the reports are in the order of the splits. Returns the try whose files count too.
///
/// Where pieces of files were decoded without what blocks before them say, `tell` is told and all is done again.
///
/// # Errors
/// The first split that fails.
pub async fn ingest(
    engine: &dyn Engine,
    spec: &SpecOf<'_>,
    splits: &[Split],
    progress: &Arc<Progress>,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(Vec<SplitReport>, u32), DataFusionError> {
    let (mut reports, number) = run(engine, spec, splits, progress).await?;
    let Some(corrected) = pieces::corrected(splits, &reports) else {
        pieces::count_lost(splits, &mut reports);
        return Ok((reports, number));
    };
    tell("a large file explains records only after they came: its pieces are decoded again");
    let next = number + 1;
    let spec = |number: u32, threads| spec(next + number, threads);
    let (mut reports, number) = run(engine, &spec, &corrected, progress).await?;
    pieces::count_lost(&corrected, &mut reports);
    Ok((reports, next + number))
}

async fn run(
    engine: &dyn Engine,
    spec: &SpecOf<'_>,
    splits: &[Split],
    progress: &Arc<Progress>,
) -> Result<(Vec<SplitReport>, u32), DataFusionError> {
    let shape = engine.shape();
    let batches = batches(splits, shape.has_workers)?;
    let plan = |number: u32| -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let spec = spec(number, shape.split_threads)?;
        let input = MemorySourceConfig::try_new_exec(&batches, task::text_schema(), None)?;
        Ok(Arc::new(TaskExec::new(TaskSpec::Ingest(spec), input)))
    };
    let mut found: Vec<RecordBatch> = Vec::new();
    let number = engine.run(&plan, &mut found, progress).await?;
    let mut reports = Vec::with_capacity(splits.len());
    for batch in found {
        for done in task::of_texts(&batch)? {
            match done {
                Done::Report(report) => reports.push(report),
                Done::Failed(failed) => return Err(task::external(IngestError::from(failed))),
            }
        }
    }
    reports.sort_by_key(|report: &SplitReport| report.split);
    let found: Vec<_> = reports.iter().map(|report| report.split).collect();
    let wanted: Vec<_> = splits.iter().map(|split| split.id).collect();
    if found != wanted {
        return Err(DataFusionError::Internal(format!(
            "{} splits were decoded as {}",
            wanted.len(),
            found.len()
        )));
    }
    Ok((reports, number))
}

/// One partition each, or one for all: then a split has all threads to itself, so that memory does not grow with their number.
fn batches(
    splits: &[Split],
    is_task_a_split: bool,
) -> Result<Vec<Vec<RecordBatch>>, DataFusionError> {
    let partition = |splits: &[Split]| Ok(vec![task::to_texts(splits)?]);
    match is_task_a_split {
        true => splits.chunks(1).map(partition).collect(),
        false => Ok(vec![partition(splits)?]),
    }
}
