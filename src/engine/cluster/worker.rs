//! A worker's child process: it serves one driver run, from dialling to its end. Every way out is bounded in time.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::BuildHasher as _;
use std::hash::Hasher as _;
use std::hash::RandomState;
use std::io;
use std::io::Read as _;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::BALLISTA_PROTOCOL_VERSION;
use ballista_core::client::BallistaClient;
use ballista_core::client_pool::BallistaClientPool;
use ballista_core::client_pool::PooledClient;
use ballista_core::error::BallistaError;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::serde::BallistaCodec;
use ballista_core::serde::BallistaLogicalExtensionCodec;
use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::executor_grpc_server::ExecutorGrpcServer;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::scheduler::ExecutorSpecification;
use ballista_core::utils::GrpcClientConfig;
use ballista_executor::execution_engine::DefaultExecutionEngine;
use ballista_executor::execution_loop::poll_loop;
use ballista_executor::executor::Executor;
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::health::ExecutorHealth;
use ballista_executor::metrics::LoggingMetricsCollector;
use datafusion_proto::protobuf::LogicalPlanNode;
use datafusion_proto::protobuf::PhysicalPlanNode;
use serde::Deserialize;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;

use crate::config;
use crate::config::Config;
use crate::config::Layers;
use crate::config::Origin;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth::Auth;
use crate::engine::cluster::budget::Budget;
use crate::engine::cluster::control::Control;
use crate::engine::cluster::dial::dial;
use crate::engine::cluster::dial::in_time;
use crate::engine::cluster::driver::codec;
use crate::engine::cluster::fitness;
use crate::engine::cluster::fitness::Checked;
use crate::engine::cluster::fitness::Fitness;
use crate::engine::cluster::fitness::State;
use crate::engine::cluster::heartbeat;
use crate::engine::cluster::members::LEAVING;
use crate::engine::cluster::pool::Keys;
use crate::engine::cluster::pool::Rendezvous;
use crate::engine::cluster::shuffles::Shuffles;
use crate::engine::session;
use crate::engine::task::Spool;
use crate::store::Store;

/// What a child process is told through its pipe.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    rendezvous: Rendezvous,
    /// Settings of this machine, and what is laid over Hadoop's.
    settings: BTreeMap<String, String>,
    hadoop_files: Vec<PathBuf>,
    hadoop_defines: Vec<(String, String)>,
    pub(super) slots: usize,
    pub(super) memory_bytes: u64,
    work_dir: PathBuf,
    pub(super) bind: IpAddr,
    pub(super) external_host: Option<String>,
    pub(super) grace: Duration,
    /// The key comes with the order, whatever key pools of this site have.
    pub(super) is_keyed: bool,
}

impl Order {
    /// Makes one of a configuration for so many tasks at a time in so much memory.
    #[must_use]
    pub(super) fn new(
        config: &Config,
        rendezvous: Rendezvous,
        (slots, memory_bytes): (usize, u64),
        work_dir: &Path,
    ) -> Self {
        Self {
            rendezvous,
            settings: config.texts.clone(),
            hadoop_files: config.hadoop.files.clone(),
            hadoop_defines: config.hadoop.defines.clone(),
            slots,
            memory_bytes,
            work_dir: work_dir.to_path_buf(),
            bind: IpAddr::from([127, 0, 0, 1]),
            external_host: None,
            // With its driver it is over.
            grace: Duration::ZERO,
            is_keyed: false,
        }
    }

    fn config(
        &self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, config::Error> {
        let mut layers = Layers::try_new(environment)?;
        for (key, value) in &self.settings {
            layers.set(key.clone(), value.clone(), Origin::Flag)?;
        }
        for path in &self.hadoop_files {
            layers.add_hadoop_file(path.clone());
        }
        for (key, value) in &self.hadoop_defines {
            layers.define(key, value)?;
        }
        layers.check()
    }
}

/// Serves the driver that standard input tells of, until it or this process's parent is gone; what happens is told line by line.
///
/// # Errors
/// The order, the driver cannot be reached, or this machine is not fit for work.
pub fn serve(
    environment: impl Iterator<Item = (String, String)>,
    tell: fn(&str),
) -> Result<(), ClusterError> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(ClusterError::tls)?;
    let order: Order = serde_json::from_str(&line).map_err(ClusterError::tls)?;
    let config = order.config(environment).map_err(ClusterError::tls)?;
    let store = Store::open(&config).map_err(ClusterError::tls)?;
    let leave = Arc::new(Notify::new());
    let pipe = Arc::clone(&leave);
    drop(std::thread::spawn(move || {
        // Its end: the parent is gone, or wants this process to leave.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        pipe.notify_one();
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ClusterError::tls)?;
    let served = runtime.block_on(session(&order, (&config, &store), &leave, tell));
    runtime.shutdown_background();
    served
}

struct Served<'a> {
    order: &'a Order,
    store: &'a Store,
    state: Arc<State>,
    id: String,
    tell: fn(&str),
}

async fn session(
    order: &Order,
    (config, store): (&Config, &Store),
    leave: &Notify,
    tell: fn(&str),
) -> Result<(), ClusterError> {
    let Rendezvous {
        host, port, run, ..
    } = &order.rendezvous;
    let shuffles = order.work_dir.join("shuffle");
    // What a killed predecessor left.
    drop(std::fs::remove_dir_all(&shuffles));
    fitness::check(&order.work_dir, store).map_err(ClusterError::Worker)?;
    std::fs::create_dir_all(&shuffles).map_err(ClusterError::tls)?;
    let keys = match order.is_keyed {
        true => Keys::OfRun,
        false => Keys::find(&config.pool)?,
    };
    let auth = order
        .rendezvous
        .auth(&keys, "worker", config.cluster.waits)?;
    let most = config.cluster.message_bytes;
    let mut driver =
        SchedulerGrpcClient::new(dial(&order.rendezvous, &auth, config.cluster.waits).await?)
            .max_decoding_message_size(most)
            .max_encoding_message_size(most);
    let listener = TcpListener::bind((order.bind, 0))
        .await
        .map_err(ClusterError::tls)?;
    let own_port = listener.local_addr().map_err(ClusterError::tls)?.port();
    let served = Served {
        order,
        store,
        state: Arc::default(),
        id: own_id(own_port),
        tell,
    };
    let executor = Arc::new(served.executor(&auth, &shuffles, u32::from(own_port))?);
    let server = answer(&auth, listener, (&executor, most))?;
    let own = executor.metadata.clone();
    let codec: BallistaCodec<LogicalPlanNode, PhysicalPlanNode> =
        BallistaCodec::new(Arc::new(BallistaLogicalExtensionCodec::default()), codec());
    let (health, ask) = (ExecutorHealth::new(), Arc::new(Notify::new()));
    let woken = Some(Arc::clone(&ask));
    // It never ends by itself, whatever the driver answers, or does not: watched from outside.
    let polls = poll_loop(driver.clone(), executor, codec, woken, None, health.clone());
    let mut polls = tokio::spawn(polls);
    let heartbeats = heartbeat::send(&health, driver.clone(), own);
    tell(&format!(
        "run {run}: serving the driver at {host}:{port}, on port {own_port}"
    ));
    let give_up = config.cluster.worker_timeout;
    let mut asked = driver.clone();
    let why = served.watch(&mut polls, (&health, &mut asked), (leave, &ask), give_up);
    let why = why.await;
    let bye = proto::ExecutorStoppedParams {
        executor_id: served.id.clone(),
        reason: why.to_owned(),
    };
    drop(tokio::time::timeout(BYE, driver.executor_stopped(bye)).await);
    polls.abort();
    heartbeats.abort();
    server.abort();
    drop(std::fs::remove_dir_all(&order.work_dir));
    served.tell_end(why)
}

/// How long the driver may take to hear that this worker leaves, or wants to.
const BYE: Duration = Duration::from_secs(1);

/// Begins with the process, by which workers of the driver's machine are known; the rest tells apart what has one number on many machines.
fn own_id(port: u16) -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{}-{port}-{random:016x}", std::process::id())
}

/// Serves shuffles and the driver's calls on one port.
fn answer(
    auth: &Auth,
    listener: TcpListener,
    (executor, most): (&Arc<Executor>, usize),
) -> Result<JoinHandle<Result<(), tonic::transport::Error>>, ClusterError> {
    let shuffles = Shuffles(BallistaFlightService::new(executor.work_dir.clone()));
    let server = auth
        .server()?
        .add_service(FlightServiceServer::new(shuffles).max_encoding_message_size(most))
        .add_service(ExecutorGrpcServer::new(Control(Arc::clone(executor))))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    Ok(tokio::spawn(server))
}

/// How soon work is asked for after a task, since one plan follows the other.
const ASK_BUSY: Duration = Duration::from_millis(5);
/// Then later and later, by such a part of the time without any.
const ASK_PART: u32 = 16;
/// How often work is asked for at last.
const ASK_IDLE: Duration = Duration::from_secs(1);
/// A worker without a free slot says so late what became of its tasks.
const HEARD: Duration = Duration::from_millis(5500);
const HANDED_ON: Duration = Duration::from_millis(3);

impl Served<'_> {
    fn executor(&self, auth: &Auth, shuffles: &Path, port: u32) -> Result<Executor, ClusterError> {
        let Self { order, store, .. } = self;
        let host = order.external_host.clone();
        let host = host.unwrap_or_else(|| order.bind.to_string());
        let about = format!(
            "klieg {}, {} MiB",
            env!("CARGO_PKG_VERSION"),
            order.memory_bytes >> 20
        );
        let metadata = proto::ExecutorRegistration {
            id: self.id.clone(),
            // It goes into URLs.
            host: Some(match host.parse::<Ipv6Addr>() {
                Ok(address) => format!("[{address}]"),
                Err(_) => host,
            }),
            port,
            grpc_port: port,
            specification: Some(
                ExecutorSpecification::default()
                    .with_vcores(u32::try_from(order.slots).unwrap_or(1))
                    .into(),
            ),
            os_info: Some(proto::ExecutorOperatingSystemSpecification {
                os_ver_long: about,
                ..Default::default()
            }),
            ballista_protocol_version: BALLISTA_PROTOCOL_VERSION,
        };
        let budget = Budget::of(order.memory_bytes, order.slots);
        let spill = order.work_dir.join("spill");
        std::fs::create_dir_all(&spill).map_err(ClusterError::tls)?;
        // Each task has a pool of its own in place of this one's.
        let runtime = session::runtime(store, budget.slot, &spill).map_err(ClusterError::tls)?;
        let settings = session::with_store(auth.session(), store).with_extension(Arc::new(Spool {
            folder: order.work_dir.join("spool"),
            cache_bytes: usize::try_from(budget.cache).unwrap_or(usize::MAX),
        }));
        let engine = Arc::new(Checked {
            engine: DefaultExecutionEngine::with_client_pool(Arc::new(Clients {
                waits: auth.waits(),
                known: Mutex::default(),
            })),
            place: Arc::new(Fitness {
                work_dir: order.work_dir.clone(),
                store: (*store).clone(),
                state: Arc::clone(&self.state),
                id: self.id.clone(),
                memory_bytes: budget.slot,
                run: order.rendezvous.run.clone(),
                tell: self.tell,
            }),
        });
        Ok(Executor::new(
            metadata,
            &shuffles.display().to_string(),
            Arc::new(move |_| Ok(Arc::clone(&runtime))),
            Arc::new(move || settings.clone()),
            Arc::default(),
            Arc::new(LoggingMetricsCollector::default()),
            order.slots,
            engine,
        ))
    }

    fn tell_end(&self, why: &str) -> Result<(), ClusterError> {
        let State { done, failed, .. } = &*self.state;
        (self.tell)(&format!(
            "run {}: {why}; {} tasks done, {} failed",
            self.order.rendezvous.run,
            done.load(Ordering::Relaxed),
            failed.load(Ordering::Relaxed)
        ));
        match self.state.is_unfit.load(Ordering::Relaxed) {
            true => Err(ClusterError::Worker("not fit for work".to_owned())),
            false => Ok(()),
        }
    }

    /// Waits for a reason to leave.
    async fn watch(
        &self,
        polls: &mut JoinHandle<Result<(), BallistaError>>,
        (health, driver): (&ExecutorHealth, &mut SchedulerGrpcClient<Channel>),
        (leave, ask): (&Notify, &Notify),
        give_up: Duration,
    ) -> &'static str {
        let mut answered = Instant::now();
        let mut leaving: Option<Instant> = None;
        let (mut idle_since, mut why) = (Instant::now(), "told to leave");
        loop {
            let pause = (idle_since.elapsed() / ASK_PART).clamp(ASK_BUSY, ASK_IDLE);
            tokio::select! {
                () = tokio::time::sleep(pause) => ask.notify_one(),
                () = self.state.ask.notified() => {
                    idle_since = Instant::now();
                    if self.state.is_unfit.load(Ordering::Relaxed) && leaving.is_none() {
                        (leaving, why) = (Some(Instant::now()), "not fit for work");
                    }
                    // What became of the task is handed on right after it ends.
                    tokio::time::sleep(HANDED_ON).await;
                    ask.notify_one();
                }
                _ = &mut *polls => return "the driver has no more work",
                () = leave.notified(), if leaving.is_none() => {
                    idle_since = Instant::now();
                    leaving = Some(idle_since);
                }
            }
            let grace = match self.state.is_unfit.load(Ordering::Relaxed) {
                // What is wrong here is to be heard.
                true => self.order.grace.max(HEARD),
                false => self.order.grace,
            };
            if let Some(since) = leaving
                && (since.elapsed() >= grace || self.may_leave(driver).await)
            {
                return why;
            }
            if health.is_ready() {
                answered = Instant::now();
            } else if answered.elapsed() >= give_up {
                return "the driver does not answer";
            }
        }
    }
}

impl Served<'_> {
    /// Tells the driver that no more tasks are wanted; true when it needs nothing of what was done here.
    async fn may_leave(&self, driver: &mut SchedulerGrpcClient<Channel>) -> bool {
        let question = proto::ExecutorStoppedParams {
            executor_id: self.id.clone(),
            reason: LEAVING.to_owned(),
        };
        match tokio::time::timeout(BYE, driver.executor_stopped(question)).await {
            Ok(Ok(_)) => true,
            // It is gone, and this worker does nothing.
            Ok(Err(status)) => {
                let is_idle = self.state.running.load(Ordering::Relaxed) == 0;
                is_idle && status.code() != Code::FailedPrecondition
            }
            Err(_) => false,
        }
    }
}

/// One connection to each other worker, kept: without it each fetch would shake hands.
struct Clients {
    waits: config::Waits,
    known: Mutex<BTreeMap<(String, u16), BallistaClient>>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

#[tonic::async_trait]
impl BallistaClientPool for Clients {
    async fn acquire(
        &self,
        host: &str,
        port: u16,
        config: &GrpcClientConfig,
        hook: Option<Arc<BallistaConfigGrpcEndpoint>>,
    ) -> Result<PooledClient, BallistaError> {
        let key = (host.to_owned(), port);
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        let client = match known {
            // Its channel connects again by itself.
            Some(client) => client,
            None => {
                let client = BallistaClient::try_new(
                    host,
                    port,
                    config.max_message_size,
                    config.use_tls,
                    hook,
                    config.io_retries_times,
                    config.io_retry_wait_time_ms,
                    config.initial_connection_window_size,
                    config.initial_stream_window_size,
                );
                // So that the driver hears from whom nothing could be read.
                let silent =
                    |error: io::Error| BallistaError::GrpcConnectionError(error.to_string());
                in_time(self.waits, client).await.map_err(silent)??
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, client.clone());
        Ok(PooledClient::new(client, Box::new(drop)))
    }

    async fn evict_idle(&self) {}
}
