//! The driver's side of E-steps on workers.

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use tokio::runtime::Handle;

use crate::engine::Engine;
use crate::engine::Progress;
use crate::engine::fold::FoldSpec;
use crate::engine::fold::Place;
use crate::engine::fold::Summed;
use crate::engine::task;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::ml::lda::Corpus;
use crate::ml::lda::EStep;
use crate::ml::lda::Sums;
use crate::ml::lda::Topics;
use crate::ml::lda::Workers;
use crate::store::Store;

/// Shards of a task, where there are so many: enough work that its start does not count.
const TASK_SHARDS: usize = 16;

/// A corpus in the warehouse, and the engine whose workers read it.
pub struct Training<'a> {
    engine: &'a dyn Engine,
    store: &'a Store,
    progress: &'a Arc<Progress>,
    runtime: Handle,
    corpus: PathBuf,
    /// First byte and bytes of each shard.
    places: Vec<(u64, u32)>,
    steps: AtomicU32,
}

impl<'a> Training<'a> {
    /// Writes the shards of a corpus to a new file of the warehouse, by way of a file of this machine where these are not the same.
    /// `runtime` drives the engine; it is not the one of the thread that asks for E-steps.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn try_new(
        (engine, runtime): (&'a dyn Engine, Handle),
        store: &'a Store,
        (local, corpus): (&Path, PathBuf),
        shards: &Corpus,
        progress: &'a Arc<Progress>,
    ) -> Result<Self, DataFusionError> {
        let mut file = BufWriter::new(File::create(local)?);
        let (mut places, mut start) = (Vec::new(), 0);
        for bytes in shards.packed() {
            file.write_all(&bytes)?;
            places.push((start, u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
            start += bytes.len() as u64;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if !store.is_local() {
            store.files().upload(local, &corpus)?;
            std::fs::remove_file(local)?;
        }
        Ok(Self {
            engine,
            store,
            progress,
            runtime,
            corpus,
            places,
            steps: AtomicU32::new(0),
        })
    }

    fn plan(
        &self,
        shards: &[u32],
        topics: &Path,
        (width, step): (usize, EStep),
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let places: Vec<Place> = (0..)
            .zip(shards)
            .filter_map(|(place, &shard)| {
                let (from, bytes) = *self.places.get(shard as usize)?;
                Some((shard, place, from, bytes))
            })
            .collect();
        let tasks = self.engine.shape().partitions.max(1);
        let of_task = places.len().div_ceil(tasks).max(TASK_SHARDS);
        let partitions: Result<Vec<_>, DataFusionError> = places
            .chunks(of_task)
            .map(|places| Ok(vec![task::to_texts(&[places])?]))
            .collect();
        let input = MemorySourceConfig::try_new_exec(&partitions?, task::text_schema(), None)?;
        let spec = TaskSpec::Fold(FoldSpec {
            corpus: self.corpus.display().to_string(),
            topics: topics.display().to_string(),
            width: u32::try_from(width).unwrap_or(u32::MAX),
            document_pseudo_count: step.document_pseudo_count.to_bits(),
            weight: step.weight.to_bits(),
            tokens: step.tokens,
        });
        Ok(Arc::new(TaskExec::new(spec, input)))
    }
}

impl Workers for Training<'_> {
    type Error = DataFusionError;

    fn e_step(
        &self,
        shards: &[u32],
        topics: &Topics,
        step: EStep,
    ) -> Result<Sums, DataFusionError> {
        if shards.is_empty() {
            // An engine would have nothing to run.
            return Ok(Sums::none(topics));
        }
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let file = self.corpus.with_extension(format!("{number}.phi"));
        let files = self.store.files();
        let fail = |error: io::Error| {
            let text = format!("{}: {error}", self.store.url(&file));
            DataFusionError::IoError(io::Error::new(error.kind(), text))
        };
        let bytes = topics.to_bytes();
        // Nobody reads it before it is complete, and it need not outlive this process.
        let written = match self.store.is_local() {
            true => std::fs::write(&file, &bytes),
            false => files.put(&file, &bytes),
        };
        written.map_err(fail)?;
        let mut summed = Summed::new(topics, shards.len(), step);
        let plan = |_| self.plan(shards, &file, (topics.topics(), step));
        let of_step = self.progress.begin_plan();
        let run = self.engine.run(&plan, &mut summed, &of_step);
        let done = self.runtime.block_on(run);
        self.progress.end_plan(&of_step);
        done?;
        files.remove(&file).map_err(fail)?;
        let found = summed.shards();
        match found == shards.len() {
            true => Ok(summed.sums),
            false => Err(DataFusionError::Internal(format!(
                "{found} of {} shards were folded in",
                shards.len()
            ))),
        }
    }
}
