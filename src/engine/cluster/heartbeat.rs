//! How a worker says that it lives: a question for work that names no slots. Ballista's loop asks only every five seconds while no slot is
//! free.

use std::time::Duration;

use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_executor::health::ExecutorHealth;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// True for what only says that a worker lives.
pub(super) fn is_one(worker: &proto::ExecutorRegistration) -> bool {
    worker.specification.is_none()
}

/// Sends one after each pause, until it is aborted. What becomes of them is told to `health`.
pub(super) fn send(
    health: &ExecutorHealth,
    mut driver: SchedulerGrpcClient<Channel>,
    (mut worker, pause): (proto::ExecutorRegistration, Duration),
) -> JoinHandle<()> {
    worker.specification = None;
    let health = health.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(pause).await;
            let heartbeat = proto::PollWorkParams {
                metadata: Some(worker.clone()),
                ..Default::default()
            };
            match driver.poll_work(heartbeat).await {
                Ok(_) => health.mark_heartbeat_ok(),
                Err(_) => health.mark_heartbeat_failed(),
            }
        }
    })
}
