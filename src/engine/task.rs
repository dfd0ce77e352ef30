//! The one operator of ours: rows in, a task's work, rows out.
//!
//! It is interior and keeps partitions, so that an engine that cuts plans into tasks cuts its input, never the operator itself;
//! what it works on comes as rows, never from the index of a partition. [`TaskSpec`] is serialised whole.

use std::fmt;
use std::sync::Arc;

use arrow::array::Array as _;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::DisplayAs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::ExecutionPlanProperties as _;
use datafusion::physical_plan::PlanProperties;
use datafusion::physical_plan::execution_plan::Boundedness;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use serde::Deserialize;
use serde::Serialize;

use crate::engine::ingest;
use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Split;
use crate::engine::probe;
use crate::engine::probe::ProbeSpec;
use crate::engine::session::Progress;
use crate::engine::words;
use crate::engine::words::WordsSpec;
use crate::store::Store;

/// What an operator does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum TaskSpec {
    /// Rows are splits; each is decoded and written; one report each.
    Ingest(IngestSpec),
    /// Rows of the `flow` table; two words each.
    Words(WordsSpec),
    /// Rows of the `flow` table; those that a list needs.
    Probe(ProbeSpec),
}

impl TaskSpec {
    /// Returns the schema of the rows that come out.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Ingest(_) => text_schema(),
            Self::Words(_) => words::schema(),
            Self::Probe(_) => probe::schema(),
        }
    }
}

/// One column of JSON texts: splits, and their reports.
#[must_use]
pub fn text_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("json", DataType::Utf8, false)]))
}

/// The operator.
#[derive(Debug)]
pub struct TaskExec {
    spec: Arc<TaskSpec>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl TaskExec {
    /// Puts the work on top of `input`.
    #[must_use]
    pub fn new(spec: TaskSpec, input: Arc<dyn ExecutionPlan>) -> Self {
        let partitioning = input.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(spec.schema()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(partitioning),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            spec: Arc::new(spec),
            input,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for TaskExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &*self.spec {
            TaskSpec::Ingest(_) => "Ingest",
            TaskSpec::Words(_) => "Words",
            TaskSpec::Probe(_) => "Probe",
        };
        write!(f, "TaskExec: {name}")
    }
}

impl ExecutionPlan for TaskExec {
    fn name(&self) -> &'static str {
        "TaskExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("TaskExec has one input".to_owned()))?;
        Ok(Arc::new(Self::new(TaskSpec::clone(&self.spec), input)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let spec = Arc::clone(&self.spec);
        let progress = context
            .session_config()
            .get_extension::<Progress>()
            .unwrap_or_default();
        let store = context.session_config().get_extension::<Store>();
        let rows = input.then(move |batch| {
            let (spec, progress, store) = (Arc::clone(&spec), Arc::clone(&progress), store.clone());
            async move { work(spec, batch?, progress, store).await }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

async fn work(
    spec: Arc<TaskSpec>,
    batch: RecordBatch,
    progress: Arc<Progress>,
    store: Option<Arc<Store>>,
) -> Result<RecordBatch, DataFusionError> {
    match &*spec {
        TaskSpec::Words(spec) => words::run(spec, &batch, &progress),
        TaskSpec::Probe(spec) => probe::run(spec, &batch, &progress),
        TaskSpec::Ingest(_) => {
            // Hours of decoding must not hold the thread that other tasks wait for.
            let done = tokio::task::spawn_blocking(move || {
                ingest_batch(&spec, &batch, &progress, store.as_deref())
            });
            done.await.map_err(external)?
        }
    }
}

fn ingest_batch(
    spec: &TaskSpec,
    batch: &RecordBatch,
    progress: &Progress,
    store: Option<&Store>,
) -> Result<RecordBatch, DataFusionError> {
    let (TaskSpec::Ingest(spec), Some(store)) = (spec, store) else {
        return Err(DataFusionError::Internal(
            "no ingest of a warehouse".to_owned(),
        ));
    };
    let texts = batch.column(0).as_any().downcast_ref::<StringArray>();
    let texts = texts.ok_or_else(|| DataFusionError::Internal("splits are texts".to_owned()))?;
    let mut reports = Vec::with_capacity(texts.len());
    for text in texts.iter().flatten() {
        let split: Split = serde_json::from_str(text).map_err(external)?;
        let report = ingest::run(store, spec, &split, &mut |bytes, records| {
            progress.add(bytes, records);
        });
        reports.push(serde_json::to_string(&report.map_err(external)?).map_err(external)?);
    }
    let column = Arc::new(StringArray::from(reports));
    Ok(RecordBatch::try_new(text_schema(), vec![column])?)
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
