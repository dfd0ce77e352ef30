//! How a worker finds its driver: by the file of a pool, or by asking at an address.

use std::fmt;
use std::net::TcpStream;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ballista_core::serde::protobuf::ExecutorStoppedParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use tonic::transport::Endpoint;

use crate::config::Waits;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth;
use crate::engine::cluster::members::text;
use crate::engine::cluster::pool;
use crate::engine::cluster::pool::Keys;
use crate::engine::cluster::pool::Rendezvous;
use crate::store::Store;

/// Where drivers are looked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seek {
    /// In the warehouse, by the name of a pool.
    Pool(String),
    /// At a host and port.
    Driver(String, u16),
}

impl fmt::Display for Seek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "drivers of pool {name}"),
            Self::Driver(host, port) => write!(f, "drivers at {}", pool::address(host, *port)),
        }
    }
}

impl Seek {
    /// Returns the driver that is there now.
    fn find(
        &self,
        store: &Store,
        keys: &Keys,
        waits: Waits,
    ) -> Result<Option<Rendezvous>, ClusterError> {
        match self {
            Self::Pool(name) => pool::find(store, name, keys),
            Self::Driver(host, port) => ask((host, *port), keys, waits).map(Some),
        }
    }
}

/// A look for the driver that goes on by itself: a NameNode that does not answer holds one up for minutes.
pub(super) struct Look(Receiver<Result<Option<Rendezvous>, ClusterError>>);

impl Look {
    pub(super) fn start(seek: &Seek, store: &Store, keys: &Arc<Keys>, waits: Waits) -> Self {
        let (send, found) = std::sync::mpsc::sync_channel(1);
        let (seek, store, keys) = (seek.clone(), store.clone(), Arc::clone(keys));
        // Nobody waits any more for one that comes too late.
        drop(std::thread::spawn(move || {
            drop(send.send(seek.find(&store, &keys, waits)));
        }));
        Self(found)
    }

    /// Returns what was found, once it is known, after at most such a time.
    pub(super) fn result(
        &self,
        time: Duration,
    ) -> Option<Result<Option<Rendezvous>, ClusterError>> {
        match self.0.recv_timeout(time) {
            Ok(found) => Some(found),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                Some(Err(ClusterError::tls("the look for a driver broke off")))
            }
        }
    }
}

/// Asks whoever listens for his build and run: he says them where he refuses a call of another one.
fn ask((host, port): (&str, u16), keys: &Keys, waits: Waits) -> Result<Rendezvous, ClusterError> {
    let fail = |error: &dyn fmt::Display| {
        ClusterError::Worker(format!(
            "no driver at {host}:{port}: {error}; it listens there while a run with cluster.port={port} uses workers, and the firewall must let the workers through to it"
        ))
    };
    // Nobody is there for most of the time, which costs no handshake.
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| fail(&error))?;
    let mut refused = fail(&"unknown host");
    let dialled = addresses.into_iter().any(|address| {
        let dialled = TcpStream::connect_timeout(&address, waits.connect);
        let is_there = dialled.is_ok();
        if let Err(error) = dialled {
            refused = fail(&error);
        }
        is_there
    });
    if !dialled {
        return Err(refused);
    }
    let found = |build: &str, run: &str| {
        let rendezvous = Rendezvous::new(run, (host, port), None);
        rendezvous.of_build(build)
    };
    // Of this build, so that a driver of another one can say who called.
    let auth = found(auth::build(), "").auth(keys, "worker", waits)?;
    let call = async {
        let url = format!("https://{}", pool::address(host, port));
        let endpoint = Endpoint::from_shared(url).map_err(|error| text(&error))?;
        let endpoint = auth.endpoint(endpoint).map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| text(&error))?;
        let nobody = ExecutorStoppedParams::default();
        match SchedulerGrpcClient::new(channel)
            .executor_stopped(nobody)
            .await
        {
            Ok(_) => Err("it believes anybody".to_owned()),
            Err(refused) => auth::who(&refused).ok_or_else(|| text(&refused)),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(ClusterError::tls)?;
    let answer =
        runtime.block_on(async { tokio::time::timeout(waits.connect + waits.answer, call).await });
    let answer = answer.map_err(|_| fail(&"no answer"))?;
    let (build, run) = answer.map_err(|error| fail(&error))?;
    Ok(found(&build, &run))
}
