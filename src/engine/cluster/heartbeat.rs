//! How a worker says that it lives: a question for work that names no slots, whose answer says how often the driver wants one. Ballista's
//! loop asks only every five seconds while no slot is free.

use std::time::Duration;

use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_executor::health::ExecutorHealth;
use tokio::task::JoinHandle;
use tonic::Response;
use tonic::transport::Channel;

use crate::config::HEARTBEAT_MS;

/// Where an answer says the pause between two, milliseconds.
const PAUSE_MS: &str = "klieg-heartbeat-ms";

/// True for what only says that a worker lives.
pub(super) fn is_one(worker: &proto::ExecutorRegistration) -> bool {
    worker.specification.is_none()
}

/// Answers one.
pub(super) fn answer(pause: Duration) -> Response<proto::PollWorkResult> {
    let mut answer = Response::new(proto::PollWorkResult::default());
    let ms = u64::try_from(pause.as_millis()).unwrap_or(*HEARTBEAT_MS.end());
    answer.metadata_mut().insert(PAUSE_MS, ms.into());
    answer
}

fn pause(answer: &Response<proto::PollWorkResult>) -> Option<Duration> {
    let ms = answer.metadata().get(PAUSE_MS)?.to_str().ok()?;
    let ms = ms.parse::<u64>().ok()?;
    let ms = ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
    Some(Duration::from_millis(ms))
}

/// Sends one now and after each pause, until it is aborted. What becomes of them is told to `health`.
pub(super) fn send(
    health: &ExecutorHealth,
    mut driver: SchedulerGrpcClient<Channel>,
    mut worker: proto::ExecutorRegistration,
) -> JoinHandle<()> {
    worker.specification = None;
    let health = health.clone();
    tokio::spawn(async move {
        let mut wanted = Duration::from_millis(*HEARTBEAT_MS.start());
        loop {
            let heartbeat = proto::PollWorkParams {
                metadata: Some(worker.clone()),
                ..Default::default()
            };
            match driver.poll_work(heartbeat).await {
                Ok(answer) => {
                    health.mark_heartbeat_ok();
                    wanted = pause(&answer).unwrap_or(wanted);
                }
                Err(_) => health.mark_heartbeat_failed(),
            }
            tokio::time::sleep(wanted).await;
        }
    })
}
