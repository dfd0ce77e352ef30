//! How far a plan is, for whoever shows it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde::Serialize;

/// Work done so far of one plan.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    rows: AtomicU64,
    stages: Mutex<Vec<Stage>>,
    reruns: Mutex<Vec<String>>,
    /// Plans of many that run.
    plans: Mutex<Vec<Arc<Self>>>,
}

/// A stage of a plan that runs on workers: tasks that need nothing of each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    /// Its number; the last one gives the result.
    pub stage: usize,
    /// What it does, from the outermost operator on.
    pub work: String,
    /// Tasks that are done.
    pub done: usize,
    /// Tasks that run.
    pub running: usize,
    /// All its tasks.
    pub tasks: usize,
    /// Workers that have, or had, a task of it.
    pub workers: usize,
    /// Rows that its finished tasks gave.
    pub rows: u64,
    /// Bytes that its finished tasks left for the next stage, on the disks of the workers.
    pub shuffled_bytes: u64,
    /// Bytes that its operators spilled.
    pub spilled_bytes: u64,
    /// Seconds from the start of its first task to the end of its last.
    pub seconds: f64,
    /// The slowest task against the median; 1 where all took equally long.
    pub skew: f64,
}

impl Stage {
    fn is_like(&self, other: &Self) -> bool {
        (self.stage, &self.work) == (other.stage, &other.work)
    }

    /// Workers and skew are the largest of all.
    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.running += other.running;
        self.tasks += other.tasks;
        self.rows += other.rows;
        self.shuffled_bytes += other.shuffled_bytes;
        self.spilled_bytes += other.spilled_bytes;
        self.seconds += other.seconds;
        self.workers = self.workers.max(other.workers);
        self.skew = self.skew.max(other.skew);
    }
}

impl Progress {
    pub(super) fn add(&self, bytes: u64, rows: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Returns raw bytes (ingest only) and rows; zero while a plan runs on workers.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.rows.load(Ordering::Relaxed),
        )
    }

    pub(super) fn set_stages(&self, stages: Vec<Stage>) {
        *self.stages.lock().unwrap_or_else(PoisonError::into_inner) = stages;
    }

    /// Returns the stages of plans that run, or ran, on workers, those of many plans that do the same as one; empty for one of this
    /// process.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = stages.clone();
        drop(stages);
        plans.iter().for_each(|plan| merge(&mut all, plan.stages()));
        all
    }

    /// Begins a plan of many.
    pub(super) fn begin_plan(&self) -> Arc<Self> {
        let plan = Arc::new(Self::default());
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.push(Arc::clone(&plan));
        plan
    }

    /// Keeps what a plan of many did that has ended.
    pub(super) fn end_plan(&self, plan: &Arc<Self>) {
        let mut ended = plan.stages();
        ended.iter_mut().for_each(|stage| stage.running = 0);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|running| !Arc::ptr_eq(running, plan));
        let mut all = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut all, ended);
        drop((plans, all));
        plan.reruns()
            .into_iter()
            .for_each(|why| self.add_rerun(why));
    }

    pub(super) fn add_rerun(&self, why: String) {
        let mut reruns = self.reruns.lock().unwrap_or_else(PoisonError::into_inner);
        reruns.push(why);
    }

    /// Returns why results were thrown away and the plan was run again, in order.
    #[must_use]
    pub fn reruns(&self) -> Vec<String> {
        let reruns = self.reruns.lock().unwrap_or_else(PoisonError::into_inner);
        reruns.clone()
    }
}

/// Adds stages to those that do the same.
fn merge(all: &mut Vec<Stage>, stages: Vec<Stage>) {
    for stage in stages {
        match all.iter_mut().find(|known| known.is_like(&stage)) {
            Some(known) => known.add(&stage),
            None => all.push(stage),
        }
    }
}
