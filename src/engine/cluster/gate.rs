//! The driver's port. `PollWork` and `ExecutorStopped` are all that workers need; no other call exists on it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpc;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion_proto::protobuf::LogicalPlanNode;
use datafusion_proto::protobuf::PhysicalPlanNode;
use tonic::Request;
use tonic::Response;
use tonic::Status;

use crate::engine::cluster::heartbeat;
use crate::engine::cluster::members::LEAVING;
use crate::engine::cluster::members::Members;

pub(super) type Scheduler = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// The service of the port.
pub(super) struct Gate {
    pub(super) scheduler: Scheduler,
    pub(super) members: Arc<Members>,
    /// How often workers say that they live.
    pub(super) heartbeat: Duration,
}

impl Gate {
    fn is_running(&self, job: &str) -> bool {
        let tasks = &self.scheduler.state.task_manager;
        let running = tasks.get_running_job_cache();
        running.keys().any(|known| known.as_str() == job)
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("workers ask for work, nothing else"))
}

#[tonic::async_trait]
impl SchedulerGrpc for Gate {
    async fn poll_work(
        &self,
        request: Request<proto::PollWorkParams>,
    ) -> Answer<proto::PollWorkResult> {
        let mut params = request.into_inner();
        let Some(registration) = params.metadata.as_ref().filter(|own| own.host.is_some()) else {
            return Err(Status::invalid_argument("no host"));
        };
        if heartbeat::is_one(registration) {
            self.members.heard(&registration.id);
            return Ok(heartbeat::answer(self.heartbeat));
        }
        for status in &params.task_status {
            self.members.note(&registration.id, status);
        }
        let id = registration.id.clone();
        let gets_tasks = self.members.seen(registration);
        self.members
            .settle(&params, &id, |job| self.is_running(job));
        if !gets_tasks {
            params.num_free_vcores = 0;
        }
        let (scheduler, members) = (self.scheduler.clone(), Arc::clone(&self.members));
        // Goes on where the caller gives up: what it was to be handed must be known, or nobody misses it.
        let handed = tokio::spawn(async move {
            let answer = scheduler.poll_work(Request::new(params)).await?;
            members.hand_out(&id, &answer.get_ref().tasks);
            Ok(answer)
        });
        let ended = |error: tokio::task::JoinError| Err(Status::internal(error.to_string()));
        handed.await.unwrap_or_else(ended)
    }

    async fn executor_stopped(
        &self,
        request: Request<proto::ExecutorStoppedParams>,
    ) -> Answer<proto::ExecutorStoppedResult> {
        let proto::ExecutorStoppedParams {
            executor_id: id,
            reason,
        } = request.get_ref();
        if reason == LEAVING {
            return match self.members.may_leave(id, |job| self.is_running(job)) {
                true => Ok(Response::new(proto::ExecutorStoppedResult::default())),
                false => Err(Status::failed_precondition("what it did is needed")),
            };
        }
        self.members.forget(id);
        self.scheduler.executor_stopped(request).await
    }

    async fn register_executor(
        &self,
        _: Request<proto::RegisterExecutorParams>,
    ) -> Answer<proto::RegisterExecutorResult> {
        none()
    }

    async fn heart_beat_from_executor(
        &self,
        _: Request<proto::HeartBeatParams>,
    ) -> Answer<proto::HeartBeatResult> {
        none()
    }

    async fn update_task_status(
        &self,
        _: Request<proto::UpdateTaskStatusParams>,
    ) -> Answer<proto::UpdateTaskStatusResult> {
        none()
    }

    async fn create_update_session(
        &self,
        _: Request<proto::CreateUpdateSessionParams>,
    ) -> Answer<proto::CreateUpdateSessionResult> {
        none()
    }

    async fn remove_session(
        &self,
        _: Request<proto::RemoveSessionParams>,
    ) -> Answer<proto::RemoveSessionResult> {
        none()
    }

    type ExecuteQueryPushStream =
        Pin<Box<dyn futures::Stream<Item = Result<proto::GetJobStatusResult, Status>> + Send>>;

    async fn execute_query_push(
        &self,
        _: Request<proto::ExecuteQueryParams>,
    ) -> Answer<Self::ExecuteQueryPushStream> {
        none()
    }

    async fn execute_query(
        &self,
        _: Request<proto::ExecuteQueryParams>,
    ) -> Answer<proto::ExecuteQueryResult> {
        none()
    }

    async fn get_job_status(
        &self,
        _: Request<proto::GetJobStatusParams>,
    ) -> Answer<proto::GetJobStatusResult> {
        none()
    }

    async fn get_job_metrics(
        &self,
        _: Request<proto::GetJobMetricsParams>,
    ) -> Answer<proto::GetJobMetricsResult> {
        none()
    }

    async fn cancel_job(
        &self,
        _: Request<proto::CancelJobParams>,
    ) -> Answer<proto::CancelJobResult> {
        none()
    }

    async fn clean_job_data(
        &self,
        _: Request<proto::CleanJobDataParams>,
    ) -> Answer<proto::CleanJobDataResult> {
        none()
    }
}
