//! A worker, as the driver knows it.

use std::time::Duration;
use std::time::Instant;

use ballista_core::serde::protobuf as proto;
use serde::Serialize;

use crate::engine::cluster::pool;

/// Barred until it has been called back.
pub(super) const NEW: &str = "not called back yet";

/// A worker that cannot be called is called again so often.
const CALL_AGAIN: Duration = Duration::from_secs(5);

/// What is known of a worker.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Its name, new for each run of a driver.
    pub id: String,
    /// Where it says that it listens.
    pub address: String,
    /// Tasks at a time.
    pub slots: u32,
    /// Version and memory, as it says.
    pub about: String,
    /// Empty for one that gets tasks, else why it does not.
    pub barred: String,
    /// Seconds since it was heard.
    pub silent_s: f64,
    /// When it asked for work.
    #[serde(skip)]
    pub(super) asked: Instant,
    /// When it did, or said that it lives.
    #[serde(skip)]
    pub(super) heard: Instant,
    /// When it last answered a call, or did not.
    #[serde(skip)]
    pub(super) called: Option<Instant>,
    /// True while it is called.
    #[serde(skip)]
    pub(super) is_called: bool,
    /// When it said that it leaves.
    #[serde(skip)]
    pub(super) leaving: Option<Instant>,
}

impl Member {
    pub(super) fn new(registration: &proto::ExecutorRegistration) -> Self {
        let host = registration.host.clone().unwrap_or_default();
        let slots = registration.specification.as_ref().map(slots);
        Self {
            id: registration.id.clone(),
            address: pool::address(&host, u16::try_from(registration.port).unwrap_or(0)),
            slots: slots.unwrap_or(1),
            about: registration
                .os_info
                .as_ref()
                .map(|info| info.os_ver_long.clone())
                .unwrap_or_default(),
            barred: NEW.to_owned(),
            silent_s: 0.0,
            asked: Instant::now(),
            heard: Instant::now(),
            called: None,
            is_called: false,
            leaving: None,
        }
    }
}

impl Member {
    /// True where it is time to call it.
    pub(super) fn is_due(&self) -> bool {
        let is_recent = |called: Instant| called.elapsed() < CALL_AGAIN;
        !self.is_called && !self.called.is_some_and(is_recent)
    }
}

fn slots(specification: &proto::ExecutorSpecification) -> u32 {
    let specification: ballista_core::serde::scheduler::ExecutorSpecification =
        specification.clone().into();
    specification.vcores
}
