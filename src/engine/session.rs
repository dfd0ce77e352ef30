//! The embedded engine: runs a plan in this process.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::array::StringArray;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::disk_manager::DiskManagerMode;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::ParquetReadOptions;
use datafusion::prelude::SessionConfig;
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;

use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Split;
use crate::engine::ingest::SplitReport;
use crate::engine::task;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::store::Store;

/// Rows of a batch in plans.
const BATCH_ROWS: usize = 8192;

/// Work done so far; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    rows: AtomicU64,
}

impl Progress {
    pub(super) fn add(&self, bytes: u64, rows: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Returns raw bytes (ingest only) and rows.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.rows.load(Ordering::Relaxed),
        )
    }
}

/// Runs plans.
pub struct Engine {
    context: SessionContext,
    progress: Arc<Progress>,
}

impl Engine {
    /// Makes an engine whose plans take at most `memory_bytes`, spill into `spill_dir`, and read and write a warehouse.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn try_new(
        threads: NonZeroUsize,
        memory_bytes: u64,
        spill_dir: &Path,
        store: &Store,
    ) -> Result<Self, DataFusionError> {
        let progress = Arc::new(Progress::default());
        let config = SessionConfig::new()
            .with_target_partitions(threads.get())
            .with_batch_size(BATCH_ROWS)
            .with_extension(Arc::clone(&progress))
            .with_extension(Arc::new(store.clone()));
        let memory = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        let spill = DiskManagerMode::Directories(vec![spill_dir.to_path_buf()]);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(memory, 1.0)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spill));
        let context = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
        if let Some((url, objects)) = store.objects() {
            let url = ObjectStoreUrl::parse(url)?;
            context.register_object_store(url.as_ref(), objects);
        }
        Ok(Self { context, progress })
    }

    /// Returns the counters of the work.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Decodes and writes splits; the reports are in the order of the splits.
    ///
    /// # Errors
    /// The first split that fails.
    pub async fn ingest(
        &self,
        spec: IngestSpec,
        splits: &[Split],
    ) -> Result<Vec<SplitReport>, DataFusionError> {
        let external = |error| DataFusionError::External(Box::new(error));
        let texts: Result<Vec<_>, _> = splits.iter().map(serde_json::to_string).collect();
        let column = Arc::new(StringArray::from(texts.map_err(external)?));
        let batch = RecordBatch::try_new(task::text_schema(), vec![column])?;
        // One partition: a split has the threads to itself, so memory does not grow with the number of splits.
        let input = MemorySourceConfig::try_new_exec(&[vec![batch]], task::text_schema(), None)?;
        let plan = Arc::new(TaskExec::new(TaskSpec::Ingest(spec), input));
        let mut reports = Vec::with_capacity(splits.len());
        for batch in self.run(plan).await? {
            let texts = batch.column(0).as_any().downcast_ref::<StringArray>();
            for text in texts.into_iter().flat_map(|texts| texts.iter().flatten()) {
                reports.push(serde_json::from_str(text).map_err(external)?);
            }
        }
        Ok(reports)
    }

    /// Plans a scan of some columns of Parquet files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub async fn scan(
        &self,
        files: &[String],
        columns: &[&str],
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let options = ParquetReadOptions::default();
        let frame = self.context.read_parquet(files.to_vec(), options).await?;
        frame.select_columns(columns)?.create_physical_plan().await
    }

    /// Runs a plan and gives its batches to `sink` as they come; memory does not grow with their number.
    ///
    /// # Errors
    /// The first error of any task, or of `sink`.
    pub async fn for_each_batch(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        mut sink: impl FnMut(&RecordBatch) -> Result<(), DataFusionError>,
    ) -> Result<(), DataFusionError> {
        let mut stream = datafusion::physical_plan::execute_stream(plan, self.context.task_ctx())?;
        while let Some(batch) = stream.next().await {
            sink(&batch?)?;
        }
        Ok(())
    }

    /// Runs a plan to its end.
    ///
    /// # Errors
    /// The first error of any task.
    pub async fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        datafusion::physical_plan::collect(plan, self.context.task_ctx()).await
    }
}
