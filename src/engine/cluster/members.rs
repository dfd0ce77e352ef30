//! What the driver knows of its workers: which there are, who of them gets tasks, and which tasks failed.
//!
//! ```text
//! worker ─PollWork─► Gate ─┬─ heartbeat (it says no slots): it lives, and wants nothing
//!                          ├─ new: the driver calls it back at once, and it gets nothing until it has answered
//!                          ├─ admitted: tasks of the scheduler
//!                          └─ barred: none (others could not read from it, or it leaves)
//! ```
//! A worker that is to leave says so by `ExecutorStopped` with [`LEAVING`], again and again: it is barred at the first time, and goes when
//! no job that runs needs what it did.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::executor_grpc_client::ExecutorGrpcClient;
use ballista_core::serde::protobuf::task_status::Status as TaskState;
use tonic::transport::Endpoint;

use crate::engine::cluster::auth::Auth;
use crate::engine::cluster::blame::Blame;
use crate::engine::cluster::blame::Verdict;
use crate::engine::cluster::dial::in_time;
use crate::engine::cluster::handed::Handed;
use crate::engine::cluster::member::Member;
use crate::engine::cluster::member::NEW;

/// A task that failed.
#[derive(Clone, Debug)]
pub(super) struct FailedTask {
    pub(super) worker: String,
    pub(super) error: String,
    /// True for what the machine or the network did, not the work.
    pub(super) is_transient: bool,
    /// The worker from which it could not read.
    pub(super) unread: Option<String>,
}

/// What the port has seen.
pub(super) struct Members {
    auth: Auth,
    timeout: Duration,
    known: Mutex<BTreeMap<String, Member>>,
    /// Of those: what they have in hand.
    handed: Mutex<BTreeMap<String, Handed>>,
    failed: Mutex<BTreeMap<String, Vec<FailedTask>>>,
    /// Who could not read from whom.
    blame: Mutex<Blame>,
    /// Jobs whose results have not been read.
    open: Mutex<BTreeSet<String>>,
    /// Workers that were lost, in order.
    losses: Mutex<Vec<String>>,
}

/// How long a connection to a silent worker may take.
const CALL: Duration = Duration::from_secs(1);
/// What a worker says that wants no more tasks, and why it gets none.
pub(super) const LEAVING: &str = "it leaves";

impl Members {
    pub(super) fn new(auth: Auth, timeout: Duration) -> Self {
        Self {
            auth,
            timeout,
            known: Mutex::default(),
            handed: Mutex::default(),
            failed: Mutex::default(),
            blame: Mutex::default(),
            open: Mutex::default(),
            losses: Mutex::default(),
        }
    }

    pub(super) fn note_loss(&self, text: String) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.push(text);
    }

    /// Returns how many workers were lost.
    pub(super) fn losses(&self) -> usize {
        let losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.len()
    }

    /// Returns the first loss after so many.
    pub(super) fn loss_after(&self, known: usize) -> Option<String> {
        let losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.get(known).cloned()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handed(&self) -> MutexGuard<'_, BTreeMap<String, Handed>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers that were heard within the time-out. The others are forgotten: one that comes back knows nothing of what it was
    /// handed, as far as anybody can tell, so that it is lost where that is wanted.
    pub(super) fn list(&self) -> Vec<Member> {
        let mut known = self.known();
        let is_silent = |_: &String, member: &mut Member| member.heard.elapsed() >= self.timeout;
        let silent: Vec<_> = known.extract_if(.., is_silent).collect();
        let open = self.open();
        let mut handed = self.handed();
        for (id, Member { address, .. }) in silent {
            let handed = handed.get_mut(&id);
            if handed.is_some_and(|handed| handed.is_needed(|job| open.contains(job))) {
                let seconds = self.timeout.as_secs();
                self.note_loss(format!("worker {address} was silent for {seconds} s"));
            }
        }
        handed.retain(|id, _| known.contains_key(id));
        drop((open, handed));
        let seen = |member: &Member| Member {
            silent_s: member.heard.elapsed().as_secs_f64(),
            ..member.clone()
        };
        known.values().map(seen).collect()
    }

    /// True while somebody may do the tasks that are left, or does some.
    pub(super) fn are_there(&self) -> bool {
        let can_work = |member: &Member| member.barred.is_empty() || member.leaving.is_some();
        self.list().iter().any(can_work)
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of a job will be read.
    pub(super) fn begin(&self, job: &str) {
        self.open().insert(job.to_owned());
    }

    /// The result of a job has been read, or is not wanted.
    pub(super) fn end(&self, job: &str) {
        self.open().remove(job);
    }

    /// Gives a worker no more tasks; true when nothing that it did is needed. It asks for work one time after the other: when it has asked
    /// since, it has got the answer before that, and what it was handed is known.
    pub(super) fn may_leave(&self, id: &str, is_running: impl Fn(&str) -> bool) -> bool {
        let mut known = self.known();
        let Some(member) = known.get_mut(id) else {
            return true;
        };
        let since = *member.leaving.get_or_insert_with(Instant::now);
        LEAVING.clone_into(&mut member.barred);
        let open = self.open();
        let goes_on = |job: &str| open.contains(job) || is_running(job);
        let mut handed = self.handed();
        let handed = handed.get_mut(id);
        member.asked > since && !handed.is_some_and(|handed| handed.is_needed(goes_on))
    }

    /// Those of them that get tasks. Where there is none, and none comes, those get some that others could not read from: alone they
    /// may do.
    pub(super) fn admitted(&self) -> Vec<Member> {
        let mut members = self.list();
        let is_none = |member: &Member| !member.barred.is_empty() && member.barred != NEW;
        if members.iter().all(is_none) {
            let mut known = self.known();
            known.values_mut().for_each(clear);
            drop(known);
            members = self.list();
        }
        members.retain(|member| member.barred.is_empty());
        members
    }

    /// A worker could not read from another: one of them is barred.
    pub(super) fn accuse(&self, reader: &str, source: &str) {
        let members = self.list();
        let of = |id: &str| members.iter().find(|member| member.id == id);
        let is_barred = |member: &Member| member.barred.starts_with(UNREAD);
        // Nobody can read from what is gone, and whoever is at fault itself is not believed.
        if of(source).is_none() || of(reader).is_none_or(is_barred) {
            return;
        }
        let mut blame = self.blame.lock().unwrap_or_else(PoisonError::into_inner);
        let Verdict { barred, cleared } = blame.add(reader, source, |id| of(id).is_some());
        drop(blame);
        let mut known = self.known();
        for id in &cleared {
            if let Some(member) = known.get_mut(id) {
                clear(member);
            }
        }
        drop(known);
        let why = format!("{UNREAD}: {reader} from {source}");
        self.bar(&barred, &why);
    }

    /// A worker gets no more tasks; barring the last one that does would help nobody.
    fn bar(&self, id: &str, why: &str) {
        if self.admitted().len() < 2 {
            return;
        }
        if let Some(member) = self.known().get_mut(id)
            && member.barred.is_empty()
        {
            why.clone_into(&mut member.barred);
        }
    }

    pub(super) fn forget(&self, id: &str) {
        self.known().remove(id);
    }

    /// Forgets the worker that a process of this machine was.
    pub(super) fn forget_process(&self, process: u32) {
        let prefix = format!("{process}-");
        self.known().retain(|id, _| !id.starts_with(&prefix));
    }

    /// True where nobody listens at the address of a worker; false where nobody knows.
    pub(super) async fn is_gone(&self, member: &Member) -> bool {
        let connected = tokio::time::timeout(CALL, tokio::net::TcpStream::connect(&member.address));
        matches!(connected.await, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// Takes the failures of a job.
    pub(super) fn take_failed(&self, job: &str) -> Vec<FailedTask> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.remove(job).unwrap_or_default()
    }

    pub(super) fn note(&self, worker: &str, status: &proto::TaskStatus) {
        use proto::failed_task::FailedReason as Reason;
        let Some(TaskState::Failed(task)) = &status.status else {
            return;
        };
        let is_transient = !matches!(task.failed_reason, Some(Reason::ExecutionError(_)) | None);
        let unread = match &task.failed_reason {
            Some(Reason::FetchPartitionError(error)) => Some(error.executor_id.clone()),
            _ => None,
        };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let of_job = failed.entry(status.job_id.clone()).or_default();
        of_job.push(FailedTask {
            worker: worker.to_owned(),
            error: task.error.clone(),
            is_transient,
            unread,
        });
    }

    /// Notes that a worker lives.
    pub(super) fn heard(&self, id: &str) {
        if let Some(member) = self.known().get_mut(id) {
            member.heard = Instant::now();
        }
    }

    /// Notes that a worker asked; true where it gets tasks.
    pub(super) fn seen(self: &Arc<Self>, registration: &proto::ExecutorRegistration) -> bool {
        let mut known = self.known();
        let member = known
            .entry(registration.id.clone())
            .or_insert_with(|| Member::new(registration));
        member.asked = Instant::now();
        member.heard = member.asked;
        if is_uncalled(member) && member.is_due() {
            member.is_called = true;
            let (members, member) = (Arc::clone(self), member.clone());
            drop(tokio::spawn(async move {
                let answer = members.call(&member.address).await;
                if let Some(known) = members.known().get_mut(&member.id) {
                    (known.is_called, known.called) = (false, Some(Instant::now()));
                    if is_uncalled(known) {
                        known.barred = answer.err().unwrap_or_default();
                    }
                }
            }));
        }
        member.barred.is_empty()
    }

    /// Notes the tasks that a worker gets.
    pub(super) fn hand_out(&self, id: &str, tasks: &[proto::TaskDefinition]) {
        self.handed().entry(id.to_owned()).or_default().add(tasks);
    }

    /// Notes what a worker says of its tasks, and a loss where some never reached it.
    pub(super) fn settle(
        &self,
        params: &proto::PollWorkParams,
        id: &str,
        is_running: impl Fn(&str) -> bool,
    ) {
        let known = self.known();
        let Some(Member { slots, address, .. }) = known.get(id) else {
            return;
        };
        let mut all = self.handed();
        let handed = all.entry(id.to_owned()).or_default();
        handed.settle(&params.task_status);
        let slots = (params.num_free_vcores, *slots);
        let lost = handed.lost(slots, Instant::now(), is_running);
        if lost > 0 {
            self.note_loss(format!(
                "worker {address} never got {lost} of its tasks, or what it said of them was lost"
            ));
        }
    }

    /// Calls a worker where it says that it is.
    async fn call(&self, address: &str) -> Result<(), String> {
        let fail = |error: &dyn std::fmt::Display| {
            format!(
                "{UNREACHABLE} {address}: {error}; open the firewall from the driver to it, or correct its --external-host"
            )
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| fail(&error))?;
        let endpoint = self.auth.endpoint(endpoint).map_err(|error| fail(&error))?;
        let channel = in_time(self.auth.waits(), endpoint.connect()).await;
        let channel = channel.map_err(|error| fail(&error))?;
        let channel = channel.map_err(|error| fail(&text(&error)))?;
        let nothing = proto::CancelTasksParams::default();
        let answer = ExecutorGrpcClient::new(channel).cancel_tasks(nothing).await;
        answer.map(drop).map_err(|error| fail(&error.message()))
    }
}

const UNREACHABLE: &str = "the driver cannot reach it at";
/// Why a worker is barred that another could not read from, or the other way round.
const UNREAD: &str = "one worker could not read from the other";

/// True while it has not answered a call.
fn is_uncalled(member: &Member) -> bool {
    member.barred == NEW || member.barred.starts_with(UNREACHABLE)
}

/// What others said of a worker counts no more.
fn clear(member: &mut Member) {
    if member.barred.starts_with(UNREAD) {
        member.barred.clear();
    }
}

/// An error with its causes.
pub(super) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Waits;
    use crate::engine::cluster::auth::Authority;

    #[test]
    fn a_worker_is_lost_by_its_silence_where_its_work_is_wanted() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let waits = Waits {
            connect: CALL,
            answer: CALL,
            fetch: CALL,
            keep_alive: CALL,
        };
        let auth = Auth::issue(&Authority::generate().unwrap(), ("b", "r"), "driver", waits);
        let members = Arc::new(Members::new(auth.unwrap(), Duration::ZERO));
        members.begin("runs");
        let works_for = |job: &str| {
            let registration = proto::ExecutorRegistration {
                id: "w".to_owned(),
                ..Default::default()
            };
            members.seen(&registration);
            let task = proto::TaskDefinition {
                job_id: job.to_owned(),
                ..Default::default()
            };
            members.hand_out("w", &[task]);
            assert!(members.list().is_empty());
        };
        works_for("is over");
        assert_eq!(members.loss_after(0), None);
        works_for("runs");
        assert!(members.loss_after(0).unwrap().contains("was silent"));
    }
}
