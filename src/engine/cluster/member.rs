//! A worker, as the driver knows it.

use std::time::Instant;

use ballista_core::serde::protobuf as proto;
use serde::Serialize;

use crate::engine::cluster::pool;

/// Barred until it has been called back.
pub(super) const NEW: &str = "not called back yet";

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
    /// Seconds since it asked for work.
    pub silent_s: f64,
    #[serde(skip)]
    pub(super) seen: Instant,
    #[serde(skip)]
    pub(super) called: Option<Instant>,
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
            seen: Instant::now(),
            called: None,
            leaving: None,
        }
    }
}

fn slots(specification: &proto::ExecutorSpecification) -> u32 {
    let specification: ballista_core::serde::scheduler::ExecutorSpecification =
        specification.clone().into();
    specification.vcores
}
