//! What the driver asks of a worker.

use std::sync::Arc;

use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::executor_grpc_server::ExecutorGrpc;
use ballista_executor::executor::Executor;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Answers that this worker is there, and ends tasks of cancelled jobs.
pub(super) struct Control(pub(super) Arc<Executor>);

type Answer<T> = Result<Response<T>, Status>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("this worker asks for its work"))
}

#[tonic::async_trait]
impl ExecutorGrpc for Control {
    async fn cancel_tasks(
        &self,
        request: Request<proto::CancelTasksParams>,
    ) -> Answer<proto::CancelTasksResult> {
        let mut cancelled = true;
        for task in request.into_inner().task_infos {
            let (stage, number) = (task.stage_id as usize, task.task_id as usize);
            let ended = self.0.cancel_task(task.job_id.into(), stage, number).await;
            cancelled &= ended.is_ok();
        }
        Ok(Response::new(proto::CancelTasksResult { cancelled }))
    }

    async fn launch_task(
        &self,
        _: Request<proto::LaunchTaskParams>,
    ) -> Answer<proto::LaunchTaskResult> {
        none()
    }

    async fn launch_multi_task(
        &self,
        _: Request<proto::LaunchMultiTaskParams>,
    ) -> Answer<proto::LaunchMultiTaskResult> {
        none()
    }

    async fn stop_executor(
        &self,
        _: Request<proto::StopExecutorParams>,
    ) -> Answer<proto::StopExecutorResult> {
        none()
    }

    async fn remove_job_data(
        &self,
        _: Request<proto::RemoveJobDataParams>,
    ) -> Answer<proto::RemoveJobDataResult> {
        none()
    }
}
