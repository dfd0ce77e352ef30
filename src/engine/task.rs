//! The one operator of ours: rows in, a task's work, rows out; and how it travels to workers.
//!
//! It is interior and keeps partitions, so that an engine that cuts plans into tasks cuts its input, never the operator itself;
//! what it works on comes as rows, never from the index of a partition. [`TaskSpec`] is serialised whole, and is its whole wire format.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

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
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::memory_pool::MemoryReservation;
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
use datafusion_proto::physical_plan::PhysicalExtensionCodec;
use datafusion_proto::physical_plan::PhysicalProtoConverterExtension;
use futures::StreamExt as _;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::Progress;
use crate::engine::fold;
use crate::engine::fold::FoldSpec;
use crate::engine::ingest;
use crate::engine::ingest::Failed;
use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Split;
use crate::engine::ingest::SplitReport;
use crate::engine::probe;
use crate::engine::probe::Pairs;
use crate::engine::probe::ProbeSpec;
use crate::engine::score;
use crate::engine::score::ScoreSpec;
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
    /// Rows are lists of shards; what they add to a topic model.
    Fold(FoldSpec),
    /// Rows are lists of shards; scores of their pairs under a topic model.
    Score(ScoreSpec),
}

impl TaskSpec {
    /// Returns the schema of the rows that come out.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Ingest(_) => text_schema(),
            Self::Words(_) => words::schema(),
            Self::Probe(_) => probe::schema(),
            Self::Fold(spec) => fold::schema(spec.width),
            Self::Score(_) => score::schema(),
        }
    }

    /// Returns the files of the warehouse that all its tasks read.
    pub(super) fn files(&self) -> Vec<&str> {
        match self {
            Self::Fold(FoldSpec { corpus, topics, .. })
            | Self::Score(ScoreSpec { corpus, topics, .. }) => vec![corpus, topics],
            Self::Probe(spec) => match &spec.pairs {
                Pairs::File(path) => vec![path],
                Pairs::Here(_) => Vec::new(),
            },
            // The files of a split are checked one by one when they are read.
            Self::Ingest(_) | Self::Words(_) => Vec::new(),
        }
    }
}

/// What became of a split, as its row says.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Done {
    /// Decoded and written.
    Report(SplitReport),
    /// Its input fails, here and anywhere.
    Failed(Failed),
}

/// What tasks have of the machine where they run; set on workers.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    /// Folder for table files on their way to the warehouse; each task has its own below it.
    pub(super) folder: PathBuf,
    /// Memory for what is read once for several tasks.
    pub(super) cache_bytes: usize,
}

/// One column of JSON texts: splits, and what became of them.
#[must_use]
pub fn text_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("json", DataType::Utf8, false)]))
}

/// Makes a batch of such texts.
pub(super) fn to_texts<T: Serialize>(values: &[T]) -> Result<RecordBatch, DataFusionError> {
    let texts: Result<Vec<_>, _> = values.iter().map(serde_json::to_string).collect();
    let column = Arc::new(StringArray::from(texts.map_err(external)?));
    Ok(RecordBatch::try_new(text_schema(), vec![column])?)
}

/// Reads such a batch.
pub(super) fn of_texts<T: DeserializeOwned>(
    batch: &RecordBatch,
) -> Result<Vec<T>, DataFusionError> {
    let texts = batch.column(0).as_any().downcast_ref::<StringArray>();
    let texts = texts.ok_or_else(|| DataFusionError::Internal("a column is no text".to_owned()))?;
    let values = texts.iter().flatten().map(serde_json::from_str);
    values.collect::<Result<_, _>>().map_err(external)
}

/// The operator.
#[derive(Debug)]
pub struct TaskExec {
    spec: Arc<TaskSpec>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl TaskExec {
    /// What it does.
    #[must_use]
    pub fn spec(&self) -> &TaskSpec {
        &self.spec
    }

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
            TaskSpec::Fold(_) => "Fold",
            TaskSpec::Score(_) => "Score",
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
        let config = context.session_config();
        let place = Place {
            progress: config.get_extension::<Progress>().unwrap_or_default(),
            store: config.get_extension::<Store>(),
            spool: config.get_extension::<Spool>(),
            memory: Arc::new(MemoryConsumer::new(self.name()).register(context.memory_pool())),
        };
        let rows = input.then(move |batch| {
            let (spec, place) = (Arc::clone(&spec), place.clone());
            async move { work(spec, batch?, place).await }
        });
        let rows = rows.flat_map(|done| {
            let batches = match done {
                Ok(batches) => batches.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(batches)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// What a task finds where it runs.
#[derive(Clone)]
struct Place {
    progress: Arc<Progress>,
    store: Option<Arc<Store>>,
    spool: Option<Arc<Spool>>,
    /// What the operator holds, so that others of its task spill the sooner; it cannot spill itself.
    memory: Arc<MemoryReservation>,
}

/// Takes memory of a slot for what cannot be spilled.
///
/// # Errors
/// There is less; `what` says for what.
pub(super) fn reserve(
    memory: &MemoryReservation,
    bytes: usize,
    what: impl Fn() -> String,
) -> Result<(), DataFusionError> {
    memory.try_resize(bytes).map_err(|error| {
        DataFusionError::ResourcesExhausted(format!(
            "a slot of a worker has no {} MiB for {}: give workers a larger --memory; {error}",
            bytes.div_ceil(1 << 20),
            what()
        ))
    })
}

/// Lives as long as work on another thread is waited for, which does not end with whoever waits; then sets what that thread looks at.
struct Wait(Arc<AtomicBool>);

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn work(
    spec: Arc<TaskSpec>,
    batch: RecordBatch,
    place: Place,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let memory = Arc::clone(&place.memory);
    memory.resize(batch.get_array_memory_size());
    let done = work_on(spec, batch, place).await;
    memory.free();
    done
}

async fn work_on(
    spec: Arc<TaskSpec>,
    batch: RecordBatch,
    place: Place,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    match &*spec {
        TaskSpec::Words(spec) => Ok(vec![words::run(spec, &batch, &place.progress)?]),
        TaskSpec::Probe(spec) => {
            let held = batch.get_array_memory_size();
            let ask = |table: usize| {
                let room = place.spool.as_ref().map(|spool| spool.cache_bytes);
                let beyond = room.map_or(0, |room| table.saturating_sub(room));
                reserve(&place.memory, held + beyond, || {
                    "the pairs that are looked up".to_owned()
                })
            };
            let table = spec.table(place.store.as_deref(), ask)?;
            let place = (&*place.progress, &*table);
            Ok(vec![probe::run(spec, &batch, place)?])
        }
        TaskSpec::Ingest(_) | TaskSpec::Fold(_) | TaskSpec::Score(_) => {
            // Hours of decoding must not hold the thread that other tasks wait for.
            let wait = Wait(Arc::default());
            let is_over = Arc::clone(&wait.0);
            let done =
                tokio::task::spawn_blocking(move || work_long(&spec, &batch, (&place, &is_over)));
            done.await.map_err(external)?
        }
    }
}

fn work_long(
    spec: &TaskSpec,
    batch: &RecordBatch,
    (place, is_over): (&Place, &AtomicBool),
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let cache = place.spool.as_ref().map_or(0, |spool| spool.cache_bytes);
    match (spec, &place.store) {
        (TaskSpec::Ingest(spec), Some(store)) => {
            Ok(vec![ingest_batch(spec, batch, (place, store), is_over)?])
        }
        (TaskSpec::Fold(spec), Some(store)) => of_places(batch, |places| {
            fold::run(spec, places, (store, cache), &place.memory)
        }),
        (TaskSpec::Score(spec), Some(store)) => of_places(batch, |places| {
            score::run(spec, places, (store, cache), &place.memory)
        }),
        _ => Err(DataFusionError::Internal("no warehouse".to_owned())),
    }
}

/// Does the tasks of a batch of which each row is a list of shards.
fn of_places(
    batch: &RecordBatch,
    work: impl Fn(&[fold::Place]) -> Result<Vec<RecordBatch>, DataFusionError>,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let mut done = Vec::new();
    for places in of_texts::<Vec<fold::Place>>(batch)? {
        done.extend(work(&places)?);
    }
    Ok(done)
}

fn ingest_batch(
    spec: &IngestSpec,
    batch: &RecordBatch,
    (place, store): (&Place, &Store),
    is_over: &AtomicBool,
) -> Result<RecordBatch, DataFusionError> {
    let splits: Vec<Split> = of_texts(batch)?;
    let mut done = Vec::with_capacity(splits.len());
    for split in &splits {
        let spec = match &place.spool {
            Some(spool) => {
                check_files(store, split)?;
                &spec.spooled(&spool.folder)
            }
            None => spec,
        };
        let report = ingest::run(store, spec, split, &mut |block| {
            place.progress.add(block.bytes, block.records);
            place.memory.resize(block.held_bytes);
            match is_over.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        if place.spool.is_some() && spec.deliver.is_some() {
            // What a split that failed has left: its folder is not used again.
            drop(std::fs::remove_dir_all(&spec.staging));
        }
        let of_split = match report {
            Ok(report) => Done::Report(report),
            Err(error) => Done::Failed(Failed::try_from(error).map_err(external)?),
        };
        let is_failed = matches!(of_split, Done::Failed(_));
        done.push(of_split);
        if is_failed {
            break;
        }
    }
    to_texts(&done)
}

/// A worker reads raw files of the warehouse, and no others.
fn check_files(store: &Store, split: &Split) -> Result<(), DataFusionError> {
    let is_strange = |path: &&String| !is_below(store.root(), Path::new(path));
    match split.files.iter().map(|file| &file.path).find(is_strange) {
        Some(path) => Err(refused(path)),
        None => Ok(()),
    }
}

/// What a worker says to a plan that leads elsewhere.
pub(super) fn refused(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!(
        "refused by the worker: {what} is not of the warehouse"
    ))
}

/// True for a path that does not leave a folder.
pub(super) fn is_below(root: &Path, path: &Path) -> bool {
    let has_parent = path.components().any(|part| part == Component::ParentDir);
    path.starts_with(root) && !has_parent
}

/// Tells [`TaskExec`] apart from what `others` know.
#[derive(Debug)]
pub(super) struct TaskCodec<C>(pub(super) C);

/// Stands before the JSON of a spec.
const MAGIC: &[u8] = b"klieg\0";

impl<C: PhysicalExtensionCodec> PhysicalExtensionCodec for TaskCodec<C> {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match (bytes.strip_prefix(MAGIC), inputs) {
            (Some(json), [input]) => {
                let spec = serde_json::from_slice(json).map_err(external)?;
                Ok(Arc::new(TaskExec::new(spec, Arc::clone(input))))
            }
            _ => self.0.try_decode(bytes, inputs, context, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<(), DataFusionError> {
        match node.downcast_ref::<TaskExec>() {
            Some(task) => {
                buffer.extend_from_slice(MAGIC);
                serde_json::to_writer(buffer, &*task.spec).map_err(external)
            }
            None => self.0.try_encode(node, buffer, converter),
        }
    }
}

pub(super) fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ingest::RawFile;

    #[test]
    fn raw_files_are_of_the_warehouse() {
        let store = Store::local(Path::new("/data/spot"));
        let own = "/data/spot/flow/landing/nfcapd.201607081005";
        for (path, is_own) in [
            (own, true),
            ("/etc/shadow", false),
            ("/data/spot/../other/nfcapd.201607081005", false),
        ] {
            let files = [own, path].map(|path| RawFile {
                path: path.to_owned(),
                bytes: 1,
                modified_ns: 0,
            });
            let split = Split {
                id: 0,
                files: files.to_vec(),
                piece: None,
            };
            assert_eq!(check_files(&store, &split).is_ok(), is_own, "{path}");
        }
    }
}
