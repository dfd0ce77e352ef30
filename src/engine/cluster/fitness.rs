//! Whether this machine is fit for work, and what it does of it: known plans, watched, and a look at the machine when one fails.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ballista_core::JobId;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::ShuffleWritePartition;
use ballista_executor::execution_engine::DefaultExecutionEngine;
use ballista_executor::execution_engine::ExecutionEngine;
use ballista_executor::execution_engine::QueryStageExecutor;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::SessionConfig;
use tokio::sync::Notify;

use crate::engine::cluster::guard::work;
use crate::engine::cluster::heap;
use crate::engine::cluster::jobs::LEAVES;
use crate::engine::cluster::jobs::NO_ANSWER;
use crate::engine::cluster::paths;
use crate::engine::session;
use crate::store::Store;
use crate::store::fail;
use crate::store::is_unavailable;

/// Below this a worker's disk is full.
const DISK_LEAST: u64 = 64 << 20;

/// Tasks of a session, and whether it is fit for more.
#[derive(Default)]
pub(super) struct State {
    pub(super) running: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) is_unfit: AtomicBool,
    /// Lets the driver be asked at once, to be told of a task that is done and for another.
    pub(super) ask: Notify,
    /// What the last task does.
    work: Mutex<String>,
}

/// Makes sure that tasks can be done here.
pub(super) fn check(folder: &Path, store: &Store) -> Result<(), String> {
    let fail = |error: &dyn fmt::Display| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
    // Tasks that fail at the same time look at the same time.
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let probe = folder.join(format!("probe-{}", PROBES.fetch_add(1, Ordering::Relaxed)));
    let written = std::fs::write(&probe, b"klieg").and_then(|()| std::fs::remove_file(&probe));
    written.map_err(|error| fail(&error))?;
    let space = rustix::fs::statvfs(folder).map_err(|error| fail(&error))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < DISK_LEAST {
        return Err(fail(&format!("{} MiB free, the disk is full", free >> 20)));
    }
    let there = store.check_folder(store.root());
    there.map_err(|error| format!("warehouse {error}"))
}

/// Ballista's engine, which runs only plans of ours and looks at this machine when one fails.
pub(super) struct Checked {
    pub(super) engine: DefaultExecutionEngine,
    pub(super) place: Arc<Fitness>,
}

pub(super) struct Fitness {
    pub(super) work_dir: PathBuf,
    pub(super) store: Store,
    pub(super) state: Arc<State>,
    pub(super) id: String,
    /// Memory of one task.
    pub(super) memory_bytes: u64,
    /// The driver's run, and where a line goes.
    pub(super) run: String,
    pub(super) tell: fn(&str),
}

impl ExecutionEngine for Checked {
    fn create_query_stage_exec(
        &self,
        job: JobId,
        stage: usize,
        task: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>, DataFusionError> {
        paths::check(&self.place.store, plan.as_ref())?;
        let work = work(plan.as_ref());
        self.place.tell_stage((&job, stage), &work);
        let inner = self
            .engine
            .create_query_stage_exec(job, stage, task, partitions, plan, work_dir, config)?;
        Ok(Arc::new(Watched {
            work,
            inner,
            place: Arc::clone(&self.place),
        }))
    }
}

/// A stage's task.
struct Watched {
    /// What it does.
    work: String,
    inner: Arc<dyn QueryStageExecutor>,
    place: Arc<Fitness>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

/// Counts down also where a task is aborted.
struct Running<'a>(&'a State);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.ask.notify_one();
    }
}

/// Gives a task a pool of its own, in which its operators share and spill.
fn own_memory(
    context: &TaskContext,
    memory_bytes: u64,
) -> Result<Arc<TaskContext>, DataFusionError> {
    let runtime = session::of_slot(&context.runtime_env(), memory_bytes)?;
    Ok(Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone(),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        runtime,
    )))
}

#[async_trait::async_trait]
impl QueryStageExecutor for Watched {
    async fn execute_query_stage(
        &self,
        task: usize,
        context: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>, DataFusionError> {
        let state = &self.place.state;
        state.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(state);
        fail::point(&format!("before a task: {}", self.work));
        let context = own_memory(&context, self.place.memory_bytes)?;
        let done = self.inner.execute_query_stage(task, context).await;
        fail::point(&format!("after a task: {}", self.work));
        match done {
            Ok(done) => {
                state.done.fetch_add(1, Ordering::Relaxed);
                Ok(done)
            }
            Err(error) => {
                state.failed.fetch_add(1, Ordering::Relaxed);
                Err(self.place.explain(error))
            }
        }
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.inner.collect_plan_metrics()
    }
}

impl Fitness {
    /// Says for which stage it works, where that does something else than the one before (training has hundreds of them), and gives
    /// back what that one has left free.
    fn tell_stage(&self, (job, stage): (&JobId, usize), work: &str) {
        let mut last = self
            .state
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *last != work {
            work.clone_into(&mut last);
            heap::give_back();
            (self.tell)(&format!(
                "run {}: stage {stage} of job {job}: {work}",
                self.run
            ));
        }
    }

    /// Looks whether a task failed because of this machine; then the worker leaves, and says so. Says too where the cluster is why.
    fn explain(&self, error: DataFusionError) -> DataFusionError {
        let message = error.to_string();
        let is_full = message.contains("No space left on device");
        let found = match check(&self.work_dir, &self.store) {
            Ok(()) if is_full => "its disk is full".to_owned(),
            Ok(()) if is_of_cluster(&error) => return error.context(NO_ANSWER),
            Ok(()) => return error,
            Err(found) => found,
        };
        self.state.is_unfit.store(true, Ordering::Relaxed);
        // What is wrong here comes first: of the task's error only the beginning may be shown.
        DataFusionError::Execution(format!("worker {}: {LEAVES}: {found}; {message}", self.id))
    }
}

/// True where the cluster of the warehouse did not answer. Ballista's errors do not tell their cause themselves.
fn is_of_cluster(error: &DataFusionError) -> bool {
    let error: &(dyn Error + 'static) = error;
    let causes = std::iter::successors(Some(error), |&error| match error.downcast_ref() {
        Some(BallistaError::DataFusionError(inner)) => Some(inner.as_ref()),
        _ => error.source(),
    });
    let mut of_io = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    of_io.any(is_unavailable)
}
