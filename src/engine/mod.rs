//! Raw files to tables, tables to counts and rows: the work that runs in plans.
//!
//! ```text
//! step ─► plan (DataFusion) ─► Engine ─┬─ Local: in this process
//!                                      └─ Cluster: tasks on workers, their result only where nothing went wrong (`cluster`)
//! ```
//! A plan does not know where it runs, and its result does not depend on it.

pub mod cluster;
pub mod fold;
mod hour_writer;
pub mod ingest;
mod ingest_error;
mod ingest_report;
mod local;
pub mod pieces;
pub mod probe;
mod progress;
pub mod score;
mod session;
mod shared;
pub mod source;
pub mod splits;
pub mod task;
pub mod training;
pub mod words;

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::ParquetReadOptions;
use datafusion::prelude::SessionContext;

pub use local::Local;
pub use progress::Progress;
pub use progress::Stage;

/// Takes the batches of a result.
pub trait Sink: Send {
    /// Forgets what came so far: the plan begins, perhaps once more.
    fn begin(&mut self);

    /// Takes a batch; they come in no order.
    ///
    /// # Errors
    /// A batch of another plan.
    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError>;
}

impl Sink for Vec<RecordBatch> {
    fn begin(&mut self) {
        self.clear();
    }

    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        self.push(batch);
        Ok(())
    }
}

/// How work is cut for an engine; results do not depend on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// Partitions of a scan and of a shuffle.
    pub partitions: usize,
    /// Threads of one split of an ingest.
    pub split_threads: NonZeroUsize,
    /// True where tasks run beside each other on workers: a split is one.
    pub has_workers: bool,
}

/// Makes the plan of a try, which is counted from 0: what a try leaves lies apart from what others leave.
pub type PlanOf<'a> =
    dyn Fn(u32) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> + Send + Sync + 'a;

/// Runs plans.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Where plans are made.
    fn session(&self) -> SessionContext;

    /// How work is cut.
    fn shape(&self) -> Shape;

    /// Runs a plan to its end and gives its batches to `sink`; returns the number of the try that counts.
    ///
    /// # Errors
    /// The first error of any task, or of `sink`.
    async fn run(
        &self,
        plan: &PlanOf<'_>,
        sink: &mut dyn Sink,
        progress: &Arc<Progress>,
    ) -> Result<u32, DataFusionError>;
}

/// Plans a scan of some columns of Parquet files.
///
/// # Errors
/// A file cannot be read.
pub async fn scan(
    engine: &dyn Engine,
    files: &[String],
    columns: &[&str],
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let options = ParquetReadOptions::default();
    let session = engine.session();
    let frame = session.read_parquet(files.to_vec(), options).await?;
    let frame = frame.select_columns(columns)?;
    frame.create_physical_plan().await
}
