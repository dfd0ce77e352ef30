//! Tasks that a worker was given and has said nothing of: an answer of the driver, or a question of the worker, may get lost on
//! its way, and neither side would ever know.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use ballista_core::serde::protobuf as proto;

/// A worker tells of a task with the question after its end; so long is more than one question.
const LOST: Duration = Duration::from_secs(5);

/// What a worker has in hand, as the driver knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Handed {
    /// Job, stage, task.
    tasks: BTreeSet<(String, u32, u32)>,
    /// Jobs that it has done something for.
    jobs: BTreeSet<String>,
    /// Since when it has more slots free than its tasks leave.
    since: Option<Instant>,
}

impl Handed {
    /// Notes tasks that it gets.
    pub(super) fn add(&mut self, tasks: &[proto::TaskDefinition]) {
        let tasks = tasks
            .iter()
            .map(|task| (task.job_id.clone(), task.stage_id, task.task_id));
        for task in tasks {
            self.jobs.insert(task.0.clone());
            self.tasks.insert(task);
        }
    }

    /// True where a job that is not over needs what it did; forgets the others.
    pub(super) fn is_needed(&mut self, goes_on: impl Fn(&str) -> bool) -> bool {
        self.jobs.retain(|job| goes_on(job));
        !self.jobs.is_empty()
    }

    /// Notes what it says of tasks.
    pub(super) fn settle(&mut self, statuses: &[proto::TaskStatus]) {
        for status in statuses {
            let task = (status.job_id.clone(), status.stage_id, status.task_id);
            self.tasks.remove(&task);
        }
    }

    /// Returns how many tasks of running jobs got lost, of a worker that asks with so many of its slots free; forgets them.
    pub(super) fn lost(
        &mut self,
        (free, slots): (u32, u32),
        now: Instant,
        is_running: impl Fn(&str) -> bool,
    ) -> usize {
        let is_short = |tasks: usize| free as usize + tasks > slots as usize;
        if !is_short(self.tasks.len()) {
            self.since = None;
            return 0;
        }
        if now.duration_since(*self.since.get_or_insert(now)) < LOST {
            return 0;
        }
        self.since = None;
        // Nobody tells of the tasks of a job that was cancelled.
        self.tasks.retain(|(job, ..)| is_running(job));
        match is_short(self.tasks.len()) {
            true => std::mem::take(&mut self.tasks).len(),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(job: &str, task_id: u32) -> proto::TaskDefinition {
        proto::TaskDefinition {
            job_id: job.to_owned(),
            task_id,
            ..Default::default()
        }
    }

    fn status(job: &str, task_id: u32) -> proto::TaskStatus {
        proto::TaskStatus {
            job_id: job.to_owned(),
            task_id,
            ..Default::default()
        }
    }

    #[test]
    fn tasks_of_an_answer_that_never_came_are_missed() {
        let start = Instant::now();
        let (all, later) = (|_: &str| true, start + LOST);
        let mut handed = Handed::default();
        handed.add(&[task("a", 1), task("a", 2)]);
        // Both run, then one is done and its status is on the way.
        assert_eq!(handed.lost((0, 2), start, all), 0);
        assert_eq!(handed.lost((1, 2), start, all), 0);
        handed.settle(&[status("a", 1)]);
        assert_eq!(handed.lost((1, 2), later, all), 0);
        // The other one is not run, and nobody says so.
        assert_eq!(handed.lost((2, 2), later, all), 0);
        assert_eq!(handed.lost((2, 2), later + LOST, all), 1);
        assert_eq!(handed.lost((2, 2), later + 2 * LOST, all), 0);
    }

    #[test]
    fn what_was_done_is_needed_until_its_job_is_over() {
        let mut handed = Handed::default();
        assert!(!handed.is_needed(|_| true));
        handed.add(&[task("a", 1), task("b", 1)]);
        handed.settle(&[status("a", 1), status("b", 1)]);
        assert!(handed.is_needed(|job| job == "b"));
        assert!(!handed.is_needed(|_| false));
    }

    #[test]
    fn tasks_of_a_job_that_is_over_are_not_missed() {
        let start = Instant::now();
        let mut handed = Handed::default();
        handed.add(&[task("over", 1)]);
        let is_running = |job: &str| job != "over";
        assert_eq!(handed.lost((1, 1), start, is_running), 0);
        assert_eq!(handed.lost((1, 1), start + LOST, is_running), 0);
    }
}
