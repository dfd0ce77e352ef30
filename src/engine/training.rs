//! The driver's side of E-steps, and of scores of pairs, on workers.

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
use crate::engine::Sink;
use crate::engine::fold::FoldSpec;
use crate::engine::fold::Place;
use crate::engine::fold::Summed;
use crate::engine::score::ScoreSpec;
use crate::engine::score::Scored;
use crate::engine::task;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::ml::lda::Corpus;
use crate::ml::lda::EStep;
use crate::ml::lda::ScoreBy;
use crate::ml::lda::Sums;
use crate::ml::lda::Topics;
use crate::ml::lda::Workers;
use crate::store::Store;

/// Shards of a task, where there are so many: enough work that its start does not count.
const TASK_SHARDS: usize = 16;
/// The most shards of a task that scores their pairs: their scores are held until it ends, some 16 MB.
const TASK_SHARDS_SCORED: usize = 64;
/// The most shards whose scores the driver holds, some 128 MB.
const WAVE_SHARDS: usize = 1024;

/// A corpus in the warehouse, and the engine whose workers read it.
pub struct Training<'a> {
    engine: &'a dyn Engine,
    store: &'a Store,
    progress: &'a Arc<Progress>,
    runtime: Handle,
    corpus: PathBuf,
    /// First byte and bytes of each shard.
    places: Vec<(u64, u32)>,
    /// Pairs of each shard.
    pairs: Vec<usize>,
    steps: AtomicU32,
}

impl<'a> Training<'a> {
    /// Writes the shards of a corpus to a new file of the warehouse, by way of a file of this machine where these are not the same.
    /// `runtime` drives the engine; no thread of it may ask for E-steps or scores, unless it says that it blocks.
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
            pairs: shards.shard_pairs().collect(),
            steps: AtomicU32::new(0),
        })
    }

    /// Deals shards to tasks, each of which takes at most so many.
    fn plan(
        &self,
        (shards, most): (&[u32], usize),
        spec: &TaskSpec,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let places: Vec<Place> = (0..)
            .zip(shards)
            .filter_map(|(place, &shard)| {
                let (from, bytes) = *self.places.get(shard as usize)?;
                Some((shard, place, from, bytes))
            })
            .collect();
        let of_task = places.len().div_ceil(self.tasks()).clamp(TASK_SHARDS, most);
        let partitions: Result<Vec<_>, DataFusionError> = places
            .chunks(of_task)
            .map(|places| Ok(vec![task::to_texts(&[places])?]))
            .collect();
        let input = MemorySourceConfig::try_new_exec(&partitions?, task::text_schema(), None)?;
        Ok(Arc::new(TaskExec::new(spec.clone(), input)))
    }

    fn tasks(&self) -> usize {
        self.engine.shape().partitions.max(1)
    }

    /// Runs a plan of shards.
    fn run(
        &self,
        shards: (&[u32], usize),
        spec: &TaskSpec,
        sink: &mut dyn Sink,
    ) -> Result<(), DataFusionError> {
        let plan = |_| self.plan(shards, spec);
        let of_step = self.progress.begin_plan();
        let run = self.engine.run(&plan, sink, &of_step);
        let done = self.runtime.block_on(run);
        self.progress.end_plan(&of_step);
        done.map(drop)
    }

    /// Writes tables of φ for the tasks of a step, which removes them.
    fn write(&self, tables: &[&Topics]) -> Result<PathBuf, DataFusionError> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let file = self.corpus.with_extension(format!("{number}.phi"));
        let bytes = tables
            .iter()
            .map(|table| table.to_bytes())
            .collect::<Vec<_>>()
            .concat();
        // Nobody reads it before it is complete, and it need not outlive this process.
        let written = match self.store.is_local() {
            true => std::fs::write(&file, &bytes),
            false => self.store.files().put(&file, &bytes),
        };
        written.map_err(|error| self.fail(&file, &error))?;
        Ok(file)
    }

    fn remove(&self, file: &Path) -> Result<(), DataFusionError> {
        let removed = self.store.files().remove(file);
        removed.map_err(|error| self.fail(file, &error))
    }

    fn fail(&self, file: &Path, error: &io::Error) -> DataFusionError {
        let text = format!("{}: {error}", self.store.url(file));
        DataFusionError::IoError(io::Error::new(error.kind(), text))
    }

    fn corpus(&self) -> String {
        self.corpus.display().to_string()
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
        let file = self.write(&[topics])?;
        let spec = TaskSpec::Fold(FoldSpec {
            corpus: self.corpus(),
            topics: file.display().to_string(),
            width: u32::try_from(topics.topics()).unwrap_or(u32::MAX),
            document_pseudo_count: step.document_pseudo_count.to_bits(),
            weight: step.weight.to_bits(),
            tokens: step.tokens,
        });
        let mut summed = Summed::new(topics, shards.len(), step);
        self.run((shards, usize::MAX), &spec, &mut summed)?;
        self.remove(&file)?;
        let found = summed.shards();
        match found == shards.len() {
            true => Ok(summed.sums),
            false => Err(DataFusionError::Internal(format!(
                "{found} of {} shards were folded in",
                shards.len()
            ))),
        }
    }

    fn scores(&self, by: &ScoreBy, sink: &mut dyn FnMut(f32)) -> Result<(), DataFusionError> {
        let file = self.write(&[&by.smooth, &by.plain])?;
        let spec = TaskSpec::Score(ScoreSpec {
            corpus: self.corpus(),
            topics: file.display().to_string(),
            document_pseudo_count: by.document_pseudo_count.to_bits(),
        });
        let shards: Vec<u32> = (0..).take(self.pairs.len()).collect();
        let of_wave = WAVE_SHARDS.min(self.tasks() * TASK_SHARDS_SCORED);
        for (wave, pairs) in shards.chunks(of_wave).zip(self.pairs.chunks(of_wave)) {
            let mut scored = Scored(vec![Vec::new(); wave.len()]);
            self.run((wave, TASK_SHARDS_SCORED), &spec, &mut scored)?;
            if let Some((scores, pairs)) = scored
                .0
                .iter()
                .zip(pairs)
                .find(|(scores, pairs)| scores.len() != **pairs)
            {
                let found = scores.len();
                let text = format!("{found} of {pairs} pairs of a shard were scored");
                return Err(DataFusionError::Internal(text));
            }
            scored.0.into_iter().flatten().for_each(&mut *sink);
        }
        self.remove(&file)
    }
}
