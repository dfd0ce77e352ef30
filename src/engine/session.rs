//! What every role registers: the driver plans with it, workers run with it.

use std::path::Path;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::disk_manager::DiskManagerMode;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;

use crate::store::Store;

/// Rows of a batch in plans.
const BATCH_ROWS: usize = 8192;

/// Settings of plans on a warehouse.
pub(super) fn config(store: &Store, partitions: usize) -> SessionConfig {
    with_store(SessionConfig::new(), store).with_target_partitions(partitions)
}

/// Adds what plans on a warehouse need to settings.
pub(super) fn with_store(config: SessionConfig, store: &Store) -> SessionConfig {
    config
        .set_bool("datafusion.execution.parquet.schema_force_view_types", true)
        .with_batch_size(BATCH_ROWS)
        .with_extension(Arc::new(store.clone()))
}

/// What runs beside others: plans of this process share neither memory nor luck with it.
pub(super) fn of_slot(
    runtime: &RuntimeEnv,
    memory_bytes: u64,
) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let memory = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    RuntimeEnvBuilder::from_runtime_env(runtime)
        .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
        .build_arc()
}

/// Memory, the folder for what is spilled, and how files of the warehouse are read.
pub(super) fn runtime(
    store: &Store,
    memory_bytes: u64,
    spill_dir: &Path,
) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let memory = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    let spill = DiskManagerMode::Directories(vec![spill_dir.to_path_buf()]);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(memory, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spill))
        .build_arc()?;
    if let Some((url, objects)) = store.objects() {
        let url = ObjectStoreUrl::parse(url)?;
        runtime.register_object_store(url.as_ref(), objects);
    }
    Ok(runtime)
}
