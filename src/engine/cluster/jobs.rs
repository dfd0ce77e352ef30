//! One try of a plan: submitted, watched, judged, its result read.

use std::fmt;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use arrow::array::RecordBatch;
use ballista_core::JobId;
use ballista_core::client::BallistaClient;
use ballista_core::error::BallistaError;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::serde::protobuf::ExecutorMetadata;
use ballista_core::serde::protobuf::JobStatus;
use ballista_core::serde::protobuf::PartitionLocation;
use ballista_core::serde::protobuf::SuccessfulJob;
use ballista_core::serde::protobuf::job_status::Status as JobState;
use ballista_scheduler::state::execution_graph::ExecutionGraphBox;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt as _;
use futures::TryFutureExt as _;
use futures::TryStreamExt as _;
use tokio::sync::mpsc::Receiver;

use crate::engine::Engine as _;
use crate::engine::Progress;
use crate::engine::Sink;
use crate::engine::cluster::Cluster;
use crate::engine::cluster::dial::in_time;
use crate::engine::cluster::guard;
use crate::engine::cluster::members::FailedTask;
use crate::store::fail;

/// How often a job is looked at.
const TICK: Duration = Duration::from_millis(200);
/// How long it may take until the stages of a job that is done are known.
const GRAPH: Duration = Duration::from_secs(5);
/// A worker whose heartbeat is late by so much is called.
const LATE: Duration = Duration::from_millis(1500);
/// What a job has left is removed at its end, and once more so long after it.
const REMOVE_AGAIN: Duration = Duration::from_secs(10);
/// Results that are fetched at a time.
const FETCHES: usize = 8;

impl Cluster {
    /// Runs a plan once; `sink` gets its result where that may be believed.
    pub(super) async fn attempt(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        sink: &mut dyn Sink,
        progress: &Progress,
    ) -> Result<(), Doubt> {
        // Of workers that were lost before, nothing is wanted.
        drop(self.look_for_losses().await);
        let losses = self.members.losses();
        let (sender, mut states) = tokio::sync::mpsc::channel(64);
        let session = Arc::new(self.session());
        let job = self
            .scheduler
            .submit_physical_plan("klieg", session, plan, Some(sender));
        let job = job.await.map_err(|error| Doubt::lasting(&error))?;
        self.members.begin(job.as_str());
        let ended = self.watch(&job, (&mut states, losses), progress).await;
        let failed = self.members.take_failed(job.as_str());
        for FailedTask { worker, unread, .. } in &failed {
            if let Some(unread) = unread {
                self.members.accuse(worker, unread);
            }
        }
        let graph = self.graph(&job, ended.is_ok()).await;
        if let Some(board) = &self.board {
            board.forget(job.as_str());
        }
        if let Some(graph) = &graph {
            progress.set_stages(guard::stages(graph.as_ref()));
        }
        let result = match (ended, graph) {
            (Ok(_), None) => Err(Doubt::passing(&"nobody knows what its stages did")),
            (Ok(result), Some(graph)) => match (guard::doubt(graph.as_ref()), failed.first()) {
                (Some(doubt), failed) => {
                    let error = failed.map(|failed| format!(" ({})", short(&failed.error)));
                    Err(Doubt::passing(&format!(
                        "{doubt}{}",
                        error.unwrap_or_default()
                    )))
                }
                (None, Some(failed)) => Err(Doubt::passing(&short(&failed.error))),
                (None, None) => {
                    fail::point("before a result is read");
                    tokio::select! {
                        fetched = self.fetch(result, sink) => fetched,
                        lost = self.loss(losses) => Err(Doubt::passing(&lost)),
                    }
                }
            },
            (Err(why), _) => Err(doubt(&why, &failed)),
        };
        let is_unavailable = failed.iter().any(|task| task.error.contains(NO_ANSWER));
        self.members.end(job.as_str());
        let workers = self.scheduler.state.executor_manager.clone();
        workers.clean_up_job_data(job.clone());
        // Again, where the removal of single stages came in between.
        drop(tokio::spawn(async move {
            tokio::time::sleep(REMOVE_AGAIN).await;
            workers.clean_up_job_data(job);
        }));
        result.map_err(|doubt| Doubt {
            is_unavailable,
            ..doubt
        })
    }

    /// Returns what the stages of a job did; it is there an instant after the job is told to have succeeded.
    async fn graph(&self, job: &JobId, is_done: bool) -> Option<ExecutionGraphBox> {
        let start = Instant::now();
        loop {
            let graph = self.jobs.get_execution_graph(job).await.ok().flatten();
            if graph.is_some() || !is_done || start.elapsed() > GRAPH {
                return graph;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the end of a job.
    async fn watch(
        &self,
        job: &JobId,
        (states, losses): (&mut Receiver<JobStatus>, usize),
        progress: &Progress,
    ) -> Result<SuccessfulJob, String> {
        let mut tick = tokio::time::interval(TICK);
        let deadline = tokio::time::sleep(self.settings.job_timeout);
        tokio::pin!(deadline);
        let mut alone = Instant::now();
        let why = loop {
            tokio::select! {
                state = states.recv() => match state.and_then(|state| state.status) {
                    Some(JobState::Successful(job)) => return Ok(job),
                    Some(JobState::Failed(job)) => return Err(job.error),
                    Some(_) => {}
                    None => break "the scheduler ended it".to_owned(),
                },
                _ = tick.tick() => {
                    let running = self.scheduler.state.task_manager.get_running_job_cache();
                    if let Some(running) = running.get(job) {
                        let graph = running.execution_graph.read().await;
                        let stages = guard::stages(graph.as_ref());
                        if let Some(board) = &self.board {
                            board.set_stages(job.as_str(), &stages);
                        }
                        progress.set_stages(stages);
                    }
                    if let Some(lost) = self.lost(losses).await {
                        break lost;
                    }
                    if self.members.are_there() {
                        alone = Instant::now();
                    } else if alone.elapsed() > self.settings.worker_timeout {
                        break "all workers are gone".to_owned();
                    }
                }
                () = &mut deadline => {
                    break format!("not done within cluster.job_timeout ({} s)", self.settings.job_timeout.as_secs());
                }
            }
        };
        drop(self.scheduler.cancel_job(job.clone()).await);
        Err(why)
    }

    /// Waits until a worker is lost.
    async fn loss(&self, known: usize) -> String {
        loop {
            tokio::time::sleep(TICK).await;
            if let Some(lost) = self.lost(known).await {
                return lost;
            }
        }
    }

    /// Looks for losses, and returns the first after so many.
    async fn lost(&self, known: usize) -> Option<String> {
        let trouble = self.look_for_losses().await;
        trouble.or_else(|| self.members.loss_after(known))
    }

    /// Notes workers that are gone, before their silence says so, for all jobs that run; returns what ends them all.
    async fn look_for_losses(&self) -> Option<String> {
        if let Some(children) = &self.children {
            if let Some(trouble) = children.tend() {
                return Some(trouble);
            }
            for process in children.take_ended() {
                // Names of workers begin with their process.
                self.members.forget_process(process);
                let text = format!("worker process {process} ended");
                self.members.note_loss(text);
            }
        }
        let mut silent = self.members.admitted();
        let late = self.settings.heartbeat + LATE;
        silent.retain(|member| member.silent_s > late.as_secs_f64());
        // All at once: each call may take a second.
        let calls = silent.iter().map(|member| self.members.is_gone(member));
        let gone = futures::future::join_all(calls).await;
        for (member, _) in silent.iter().zip(gone).filter(|(_, is_gone)| *is_gone) {
            self.members.forget(&member.id);
            let text = format!("worker {} is gone", member.address);
            self.members.note_loss(text);
        }
        None
    }

    /// Hands the result on, batch by batch, from the workers that hold it.
    async fn fetch(&self, job: SuccessfulJob, sink: &mut dyn Sink) -> Result<(), Doubt> {
        let of_partition = |location| self.fetch_one(location).try_flatten_stream().boxed();
        let partitions = futures::stream::iter(job.partition_location).map(of_partition);
        // None is begun that is not read on: what lies unread fills the window of the connection, and stops all others.
        let mut batches = partitions.flatten_unordered(FETCHES);
        while let Some(batch) = batches.next().await {
            sink.add(batch?).map_err(|error| Doubt::lasting(&error))?;
        }
        Ok(())
    }

    async fn fetch_one(&self, location: PartitionLocation) -> Result<Batches, Doubt> {
        let layout = location.layout();
        let nothing = || Doubt::passing(&"a result without its place");
        let worker = location.executor_meta.ok_or_else(nothing)?;
        let partition = location.partition_id.ok_or_else(nothing)?.into();
        let written = location.partition_stats.map(|written| written.num_rows);
        let place = format!("{}:{}", worker.host, worker.port);
        let fail =
            move |error: &dyn fmt::Display| Doubt::passing(&format!("result at {place}: {error}"));
        let client = self.client(&worker).await;
        let mut client = client.map_err(|error| fail(&error))?;
        // As it lies in the worker's file: the other way, it would be decoded and compressed once more on its way.
        let stream =
            client.fetch_partition(&worker.id, &partition, location.file_id, layout, false);
        let batches = stream.await.map_err(|error| {
            let mut known = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            known.remove(&worker.id);
            fail(&error)
        })?;
        Ok(whole(batches, written, fail).boxed())
    }

    /// Returns the connection to a worker, which lasts as long as the run: a step of training takes less than a handshake may.
    async fn client(&self, worker: &ExecutorMetadata) -> Result<BallistaClient, BallistaError> {
        let known = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known().get(&worker.id) {
            return Ok(client.clone());
        }
        let hook = Arc::new(BallistaConfigGrpcEndpoint::new(self.auth.hook()));
        let port = u16::try_from(worker.port).unwrap_or(0);
        let most = self.settings.message_bytes;
        let client =
            BallistaClient::try_new(&worker.host, port, most, true, Some(hook), 1, 500, 0, 0);
        let client = in_time(self.auth.waits(), client).await??;
        known().insert(worker.id.clone(), client.clone());
        Ok(client)
    }
}

/// Hands batches on; an error where they end before as many rows as were written.
fn whole(
    batches: SendableRecordBatchStream,
    written: Option<i64>,
    fail: impl Fn(&dyn fmt::Display) -> Doubt + Clone,
) -> impl futures::Stream<Item = Result<RecordBatch, Doubt>> {
    futures::stream::try_unfold((batches, 0), move |(mut batches, rows)| {
        let fail = fail.clone();
        async move {
            let next = batches.try_next().await.map_err(|error| fail(&error))?;
            if let Some(batch) = next {
                let rows = rows + i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
                return Ok(Some((batch, (batches, rows))));
            }
            // Negative: nobody has counted.
            match written.filter(|&written| written >= 0 && written != rows) {
                Some(written) => Err(fail(&format!("{rows} of {written} rows came"))),
                None => Ok(None),
            }
        }
    })
}

/// Batches of a result.
type Batches = futures::stream::BoxStream<'static, Result<RecordBatch, Doubt>>;

/// Why a try does not count.
pub(super) struct Doubt {
    pub(super) why: String,
    /// True where the next try would meet it too.
    pub(super) is_lasting: bool,
    /// True where the cluster of the warehouse did not answer.
    pub(super) is_unavailable: bool,
}

impl Doubt {
    fn passing(why: &dyn fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            is_lasting: false,
            is_unavailable: false,
        }
    }

    fn lasting(why: &dyn fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            is_lasting: true,
            is_unavailable: false,
        }
    }
}

/// A job that failed: because of its work, where no machine or network had a part in it.
fn doubt(why: &str, failed: &[FailedTask]) -> Doubt {
    let of_work = failed
        .iter()
        .find(|task| !task.is_transient && !task.error.contains(LEAVES));
    match of_work {
        Some(task) => Doubt::lasting(&short(&task.error)),
        None => Doubt::passing(
            &failed
                .first()
                .map_or_else(|| short(why), |task| short(&task.error)),
        ),
    }
}

/// Stands in the error of a task whose worker is not fit for work.
pub(super) const LEAVES: &str = "this worker leaves";
/// Stands in the error of a task that read from or wrote to a cluster which is down.
pub(super) const NO_ANSWER: &str = "the cluster does not answer";

/// The first line, at a length that people read.
fn short(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.chars().take(400).collect()
}
