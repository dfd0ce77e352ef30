//! How a worker dials its driver, and what it says where that fails.

use std::error::Error;
use std::io;

use tonic::transport::Channel;
use tonic::transport::Endpoint;

use crate::config;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth::Auth;
use crate::engine::cluster::members::text;
use crate::engine::cluster::pool::Rendezvous;
use crate::engine::cluster::pool::address;
use crate::store::io_cause;

/// Waits for a connection and its handshake, which a process that is stopped never answers: tonic gives up the connection alone.
///
/// # Errors
/// `TimedOut`.
pub(super) async fn in_time<T>(
    waits: config::Waits,
    connecting: impl Future<Output = T>,
) -> Result<T, io::Error> {
    let time = waits.connect * 2;
    let connected = tokio::time::timeout(time, connecting).await;
    connected.map_err(|_| {
        let text = format!("no handshake within {} s", time.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    })
}

/// Connects to the driver.
pub(super) async fn dial(
    driver: &Rendezvous,
    auth: &Auth,
    waits: config::Waits,
) -> Result<Channel, ClusterError> {
    let Rendezvous {
        host, port, run, ..
    } = driver;
    let fail = |error: &(dyn Error + 'static), hint: &str| {
        ClusterError::Worker(format!(
            "driver of run {run} at {host}:{port} cannot be reached from here: {}; {hint}",
            text(error)
        ))
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", address(host, *port)));
    let endpoint = endpoint.map_err(|error| fail(&error, FIREWALL))?;
    let endpoint = auth.endpoint(endpoint);
    let endpoint = endpoint.map_err(|error| fail(&*error, FIREWALL))?;
    // A stopped driver must become an error.
    let channel = in_time(waits, endpoint.timeout(waits.answer).connect()).await;
    let channel = channel.map_err(|error| fail(&error, SILENT))?;
    channel.map_err(|error| match io_cause(&error).map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData) => fail(&error, FOREIGN),
        _ => fail(&error, FIREWALL),
    })
}

/// Nobody answered.
const FIREWALL: &str = "open the firewall from the workers to it";
/// Somebody answered, and the handshake failed.
const FOREIGN: &str = "its certificate or that of this machine is not of the pool: pool.secret or cluster.tls must be the same on both";
/// Somebody answered, and then nothing came.
const SILENT: &str = "it is stopped, or its machine has too much to do";
