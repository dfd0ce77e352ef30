//! How a worker finds its driver: by the file of a pool, or by asking at an address.

use std::fmt;
use std::net::TcpStream;
use std::net::ToSocketAddrs as _;
use std::time::Duration;

use ballista_core::serde::protobuf::ExecutorStoppedParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use tonic::transport::Endpoint;

use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth;
use crate::engine::cluster::gate::text;
use crate::engine::cluster::pool;
use crate::engine::cluster::pool::Keys;
use crate::engine::cluster::pool::Rendezvous;
use crate::store::Store;

/// How long an address may take to accept a connection.
const DIAL: Duration = Duration::from_secs(5);

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
    pub(super) fn find(
        &self,
        store: &Store,
        keys: &Keys,
    ) -> Result<Option<Rendezvous>, ClusterError> {
        match self {
            Self::Pool(name) => pool::find(store, name, keys),
            Self::Driver(host, port) => ask(host, *port, keys).map(Some),
        }
    }
}

/// Asks whoever listens for his build and run: he says them where he refuses a call of another one.
fn ask(host: &str, port: u16, keys: &Keys) -> Result<Rendezvous, ClusterError> {
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
        let dialled = TcpStream::connect_timeout(&address, DIAL);
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
    let auth = found(auth::build(), "").auth(keys, "worker")?;
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
    let answer = runtime.block_on(async { tokio::time::timeout(DIAL, call).await });
    let answer = answer.map_err(|_| fail(&"no answer"))?;
    let (build, run) = answer.map_err(|error| fail(&error))?;
    Ok(found(&build, &run))
}
