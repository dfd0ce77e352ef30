//! What a worker does of a plan: known operators, on files of the warehouse and its own folder.
//!
//! A driver is believed because it has the key of the pool; still a plan that leads elsewhere is refused.

use std::path::Path;

use ballista_core::execution_plans::ShuffleReaderExec;
use ballista_core::execution_plans::ShuffleWriterExec;
use ballista_core::execution_plans::SortShuffleWriterExec;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;

use crate::engine::ingest::IngestSpec;
use crate::engine::task;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::store::Store;

/// Refuses a plan that has an operator that no plan of ours has, or a path that leaves the warehouse.
pub(super) fn check(store: &Store, plan: &dyn ExecutionPlan) -> Result<(), DataFusionError> {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        check_source(store, source)?;
    } else if let Some(task) = plan.downcast_ref::<TaskExec>() {
        if let TaskSpec::Ingest(spec) = task.spec() {
            check_outputs(store, spec)?;
        }
    } else if !is_known(plan) {
        return Err(refused(&format!("operator {}", plan.name())));
    }
    for child in plan.children() {
        check(store, child.as_ref())?;
    }
    Ok(())
}

fn is_known(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<ShuffleWriterExec>().is_some()
        || plan.downcast_ref::<SortShuffleWriterExec>().is_some()
        || plan.downcast_ref::<ShuffleReaderExec>().is_some()
        || plan.downcast_ref::<AggregateExec>().is_some()
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some()
        || plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<RepartitionExec>().is_some()
}

fn check_source(store: &Store, source: &DataSourceExec) -> Result<(), DataFusionError> {
    let source = source.data_source();
    if let Some(scan) = source.downcast_ref::<FileScanConfig>() {
        let own = store.objects().map_or("file:///", |(url, _)| url);
        if scan.object_store_url.as_str().trim_end_matches('/') != own.trim_end_matches('/') {
            return Err(refused(scan.object_store_url.as_str()));
        }
        let files = scan.file_groups.iter().flat_map(|group| group.iter());
        for file in files {
            let path = format!("/{}", file.object_meta.location);
            check_path(store.root(), Path::new(&path))?;
        }
        return Ok(());
    }
    match source.downcast_ref::<MemorySourceConfig>() {
        // Splits, whose files are checked one by one when they are read.
        Some(_) => Ok(()),
        None => Err(refused("a source that is neither files nor splits")),
    }
}

/// Table files go to the staging folder of a run.
fn check_outputs(store: &Store, spec: &IngestSpec) -> Result<(), DataFusionError> {
    let is_hash = |byte: u8| byte.is_ascii_hexdigit();
    if !spec.tag.bytes().all(is_hash) {
        return Err(refused(&format!("tag {}", spec.tag)));
    }
    let folder = spec.deliver.as_ref().unwrap_or(&spec.staging);
    check_path(&store.work_area().join("runs"), Path::new(folder))
}

fn check_path(root: &Path, path: &Path) -> Result<(), DataFusionError> {
    match task::is_below(root, path) {
        true => Ok(()),
        false => Err(refused(&path.display().to_string())),
    }
}

fn refused(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!(
        "refused by the worker: {what} is not of the warehouse"
    ))
}
