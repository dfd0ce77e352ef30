//! Whether the result of a job may be believed, and what its stages did.
//!
//! Ballista 55 counts finished tasks of a stage twice when a worker is lost, or a shuffle cannot be read, after they have handed on
//! what they made: the job then succeeds with a wrong result. So a result counts only where every stage was run once and every task of
//! it succeeded at its first try.

use ballista_core::serde::protobuf::task_status::Status as TaskState;
use ballista_scheduler::state::execution_graph::ExecutionGraph;
use ballista_scheduler::state::execution_stage::ExecutionStage;
use ballista_scheduler::state::execution_stage::TaskInfo;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use crate::engine::Stage;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;

type Graph = dyn ExecutionGraph + Send + Sync;

/// Says why a finished job is not believed; `None` for one that is.
pub(super) fn doubt(graph: &Graph) -> Option<String> {
    let stages = graph.stages().values();
    let mut doubts: Vec<_> = stages.filter_map(doubt_stage).collect();
    doubts.sort();
    match doubts.is_empty() {
        true => None,
        false => Some(doubts.join("; ")),
    }
}

fn doubt_stage(stage: &ExecutionStage) -> Option<String> {
    let (id, attempt) = identity(stage);
    if attempt > 0 {
        return Some(format!("stage {id} was begun {} times", attempt + 1));
    }
    if !matches!(stage, ExecutionStage::Successful(_)) {
        return Some(format!(
            "stage {id} is {}",
            stage.variant_name().to_lowercase()
        ));
    }
    let failed = tasks(stage).iter().filter(|task| is_failed(task)).count();
    (failed > 0).then(|| format!("stage {id} has {failed} failed tasks"))
}

fn is_failed(task: &TaskInfo) -> bool {
    !matches!(task.task_status, TaskState::Successful(_))
}

fn tasks(stage: &ExecutionStage) -> &[TaskInfo] {
    stage.task_infos().unwrap_or_default()
}

/// Number and attempt.
fn identity(stage: &ExecutionStage) -> (usize, usize) {
    match stage {
        ExecutionStage::UnResolved(stage) => (stage.stage_id, stage.stage_attempt_num),
        ExecutionStage::Resolved(stage) => (stage.stage_id, stage.stage_attempt_num),
        ExecutionStage::Running(stage) => (stage.stage_id, stage.stage_attempt_num),
        ExecutionStage::Successful(stage) => (stage.stage_id, stage.stage_attempt_num),
        ExecutionStage::Failed(stage) => (stage.stage_id, stage.stage_attempt_num),
    }
}

/// Every stage, in order.
pub(super) fn stages(graph: &Graph) -> Vec<Stage> {
    let mut stages: Vec<_> = graph.stages().values().map(stage).collect();
    stages.sort_by_key(|stage| stage.stage);
    stages
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of tasks")]
fn stage(graph_stage: &ExecutionStage) -> Stage {
    let partitions = match graph_stage {
        ExecutionStage::UnResolved(_) => 0,
        ExecutionStage::Resolved(stage) => stage.partitions,
        ExecutionStage::Running(stage) => stage.partitions,
        ExecutionStage::Successful(stage) => stage.partitions,
        ExecutionStage::Failed(stage) => stage.partitions,
    };
    let mut stage = Stage {
        stage: identity(graph_stage).0,
        work: work(graph_stage.plan()),
        tasks: partitions,
        ..Stage::default()
    };
    let (mut workers, mut times) = (Vec::new(), Vec::new());
    let (mut first, mut last) = (u128::MAX, 0);
    for task in tasks(graph_stage) {
        match &task.task_status {
            TaskState::Running(running) => {
                stage.running += task.global_input_partition_ids.len();
                workers.push(running.executor_id.as_str());
            }
            TaskState::Successful(done) => {
                stage.done += task.global_input_partition_ids.len();
                workers.push(done.executor_id.as_str());
                for partition in &done.partitions {
                    stage.rows += partition.num_rows;
                    stage.shuffled_bytes += partition.num_bytes;
                }
                times.push(task.end_exec_time.saturating_sub(task.start_exec_time));
                first = first.min(task.start_exec_time);
                last = last.max(task.end_exec_time);
            }
            TaskState::Failed(_) => {}
        }
    }
    workers.sort_unstable();
    workers.dedup();
    stage.workers = workers.len();
    stage.seconds = last.saturating_sub(first) as f64 / 1e3;
    times.sort_unstable();
    if let (Some(slowest), Some(median)) = (times.last(), times.get(times.len() / 2)) {
        stage.skew = *slowest as f64 / (*median).max(1) as f64;
    }
    if let ExecutionStage::Successful(done) = graph_stage {
        let spilled = done.stage_metrics.iter();
        let spilled =
            spilled.filter_map(datafusion::physical_plan::metrics::MetricsSet::spilled_bytes);
        stage.spilled_bytes = spilled.sum::<usize>() as u64;
    }
    stage
}

/// Names what a stage does by its operators.
pub(super) fn work(plan: &dyn ExecutionPlan) -> String {
    let mut names = Vec::new();
    collect(plan, &mut names);
    match names.is_empty() {
        true => plan.name().to_owned(),
        false => names.join(", "),
    }
}

/// From the first that runs on.
fn collect(plan: &dyn ExecutionPlan, names: &mut Vec<&'static str>) {
    for child in plan.children() {
        collect(child.as_ref(), names);
    }
    if let Some(task) = plan.downcast_ref::<TaskExec>() {
        names.push(match task.spec() {
            TaskSpec::Ingest(_) => "decode and write",
            TaskSpec::Words(_) => "make words",
            TaskSpec::Probe(_) => "look flows up",
            TaskSpec::Fold(_) => "fold documents in",
            TaskSpec::Score(_) => "score pairs",
        });
    } else if plan.downcast_ref::<AggregateExec>().is_some() {
        names.push("count");
    }
}
