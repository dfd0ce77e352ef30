//! The driver's side: the scheduler inside this process, its port, and jobs that are run until their result may be believed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::middleware::from_fn;
use axum::response::IntoResponse as _;
use axum::response::Response;
use ballista_core::client::BallistaClient;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::SessionConfigExt as _;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::cluster::JobState as Jobs;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::create_scheduler;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::config;
use crate::engine::Engine;
use crate::engine::PlanOf;
use crate::engine::Progress;
use crate::engine::Shape;
use crate::engine::Sink;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::auth::Auth;
use crate::engine::cluster::auth::Authority;
use crate::engine::cluster::children::Children;
use crate::engine::cluster::gate::Gate;
use crate::engine::cluster::gate::Scheduler;
use crate::engine::cluster::lazy::Lazy;
use crate::engine::cluster::lazy::Workers;
use crate::engine::cluster::member::Member;
use crate::engine::cluster::members::Members;
use crate::engine::cluster::pool;
use crate::engine::cluster::pool::Keys;
use crate::engine::cluster::pool::Membership;
use crate::engine::cluster::pool::Rendezvous;
use crate::engine::cluster::refusals;
use crate::engine::cluster::watch::Board;
use crate::engine::session;
use crate::engine::task::TaskCodec;
use crate::engine::task::external;
use crate::store::Store;

/// Runs plans on workers.
pub struct Cluster {
    pub(super) scheduler: Scheduler,
    pub(super) jobs: Arc<dyn Jobs>,
    pub(super) members: Arc<Members>,
    pub(super) auth: Auth,
    pub(super) settings: config::Cluster,
    pool_wait: Duration,
    session: SessionConfig,
    planning: Arc<RuntimeEnv>,
    /// Connections to workers, by their names.
    pub(super) clients: Mutex<BTreeMap<String, BallistaClient>>,
    pub(super) board: Option<Board>,
    pub(super) children: Option<Children>,
    /// Workers of another build that were told of.
    told: Mutex<Vec<String>>,
    // The file goes when workers have left, then the lock.
    membership: Option<Membership>,
    runtime: Option<Runtime>,
}

/// Workers look for a driver every second or two; one that has waited longer says what it sees.
const TELL_AFTER: Duration = Duration::from_secs(5);

impl Cluster {
    pub(super) fn start(lazy: &Lazy, tell: &(dyn Fn(&str) + Sync)) -> Result<Self, ClusterError> {
        let Lazy {
            workers,
            config,
            store,
            run,
            ..
        } = lazy;
        let (settings, pool) = (config.cluster.clone(), &config.pool);
        let keys = match workers {
            Workers::Local(_) => Keys::OfRun,
            Workers::Pool(_) => Keys::find(pool)?,
        };
        let membership = match workers {
            Workers::Pool(name) => Some(Membership::take(store, (name, run), pool.wait, tell)?),
            Workers::Local(_) => None,
        };
        let authority = match &keys {
            Keys::Secret(authority) => authority.clone(),
            Keys::OfRun | Keys::Site(_) => Authority::generate()?,
        };
        let listener = listen(&settings, membership.is_none())?;
        let port = listener.local_addr().map_err(ClusterError::tls)?.port();
        let host = match (&membership, &settings.external_host) {
            (Some(_), Some(host)) => host.clone(),
            (Some(_), None) => settings.bind.to_string(),
            (None, _) => "127.0.0.1".to_owned(),
        };
        let rendezvous = pool::announce(&keys, run, (&host, port), &authority);
        let auth = rendezvous.auth(&keys, "driver", settings.waits)?;
        // Its own threads: workers are answered also while all others compute.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("scheduler")
            .enable_all()
            .build()
            .map_err(ClusterError::tls)?;
        let members = Arc::new(Members::new(auth.clone(), settings.worker_timeout));
        let session = session(&auth, &settings, store);
        let serving = serve(&auth, &settings, listener, &members, &session);
        // Not on this thread, which may belong to another runtime.
        let served = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(serving)).join());
        let served = served.map_err(|_| ClusterError::tls("the scheduler cannot be started"))??;
        let mut cluster = Self {
            scheduler: served.0,
            jobs: served.1,
            members,
            auth,
            pool_wait: pool.wait,
            settings,
            session,
            planning: session::runtime(store, config.memory_bytes, &std::env::temp_dir())
                .map_err(ClusterError::tls)?,
            clients: Mutex::default(),
            board: None,
            children: None,
            told: Mutex::default(),
            membership,
            runtime: Some(runtime),
        };
        cluster.gather(lazy, &rendezvous, tell)?;
        Ok(cluster)
    }

    /// Starts workers, or tells them where we are, and waits for them.
    fn gather(
        &mut self,
        Lazy {
            workers,
            config,
            store,
            run,
            ..
        }: &Lazy,
        rendezvous: &Rendezvous,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), ClusterError> {
        let wanted = match workers {
            Workers::Local(number) => {
                self.children = Some(Children::start(*number, config, rendezvous)?);
                *number
            }
            Workers::Pool(name) => {
                if let Some(membership) = &self.membership {
                    membership.publish(rendezvous)?;
                }
                self.board = Some(Board::start(store, (name, run), Arc::clone(&self.members)));
                config.pool.min_workers
            }
        };
        let members = self.wait_for(wanted, tell)?;
        let slots: u32 = members.iter().map(|member| member.slots).sum();
        tell(&format!(
            "cluster: {} workers, {slots} slots",
            members.len()
        ));
        for member in self.members.list() {
            if !member.barred.is_empty() {
                tell(&format!(
                    "cluster: worker {}: {}",
                    member.address, member.barred
                ));
            }
        }
        Ok(())
    }

    /// Waits until so many workers can be used.
    pub(super) fn wait_for(
        &self,
        wanted: usize,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Vec<Member>, ClusterError> {
        let start = Instant::now();
        let mut is_told = false;
        loop {
            let members = self.members.admitted();
            if members.len() >= wanted {
                return Ok(members);
            }
            let ended = self.children.as_ref().and_then(Children::tend);
            if start.elapsed() >= self.pool_wait || ended.is_some() {
                return Err(ClusterError::NoWorkers {
                    found: members.len(),
                    wanted,
                    waited: start.elapsed(),
                    saw: ended.unwrap_or_else(|| self.saw()),
                });
            }
            if !is_told && start.elapsed() > TELL_AFTER {
                tell(&format!(
                    "cluster: waiting for workers, {} of {wanted} are there: {}",
                    members.len(),
                    self.saw()
                ));
                is_told = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Tells of workers of another build, once of each.
    pub(super) fn tell_refused(&self, tell: &(dyn Fn(&str) + Sync)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for text in self.refused() {
            if !told.contains(&text) {
                tell(&format!("cluster: {text}"));
                told.push(text);
            }
        }
    }

    /// Says which workers are of another build.
    fn refused(&self) -> Vec<String> {
        let refused = self.membership.as_ref().map(Membership::refusals);
        let mut refused = refused.unwrap_or_default();
        refused.extend(self.auth.strangers().iter().map(refusals::of_caller));
        refused
    }

    /// Says which workers there are and why they are not used.
    fn saw(&self) -> String {
        let all = self.members.list();
        let barred = all.iter().filter(|member| !member.barred.is_empty());
        let barred: Vec<_> = barred
            .map(|member| format!("{}: {}", member.address, member.barred))
            .collect();
        let refused = self.refused();
        let told = match &self.membership {
            Some(_) => "the pool file is written",
            None => "they were started",
        };
        let dialled = match (all.len(), refused.is_empty()) {
            (0, true) => format!(
                "{told}, and no worker has dialled: do workers of this pool, of this build, of this user and with the same key run, do their logs say what they lack, and does a firewall let them reach port {}?",
                self.scheduler.scheduler_endpoint
            ),
            (0, false) => format!("{told}, and no worker has dialled"),
            (dialled, _) => format!("{told}, and {dialled} workers have dialled"),
        };
        [vec![dialled], barred, refused].concat().join("; ")
    }
}

#[async_trait]
impl Engine for Cluster {
    fn session(&self) -> SessionContext {
        let partitions = self.shape().partitions;
        let config = self.session.clone().with_target_partitions(partitions);
        SessionContext::new_with_config_rt(config, Arc::clone(&self.planning))
    }

    fn shape(&self) -> Shape {
        let members = self.members.admitted();
        let slots: u32 = members.iter().map(|member| member.slots).sum();
        Shape {
            partitions: usize::try_from(slots).unwrap_or(1).max(1),
            split_threads: NonZeroUsize::MIN,
            has_workers: true,
        }
    }

    async fn run(
        &self,
        plan: &PlanOf<'_>,
        sink: &mut dyn Sink,
        progress: &Arc<Progress>,
    ) -> Result<u32, DataFusionError> {
        let mut last: Option<String> = None;
        for number in 0.. {
            sink.begin();
            let doubt = match self.attempt(plan(number)?, sink, progress).await {
                Ok(()) => return Ok(number),
                Err(doubt) => doubt,
            };
            let is_same = last.as_ref() == Some(&doubt.why);
            if number >= self.settings.max_reruns || doubt.is_lasting && is_same {
                return Err(external(ClusterError::Tries {
                    tries: number + 1,
                    why: doubt.why,
                    is_unavailable: doubt.is_unavailable,
                }));
            }
            progress.add_rerun(doubt.why.clone());
            last = Some(doubt.why);
            let tell = |_: &str| {};
            tokio::task::block_in_place(|| self.wait_for(1, &tell)).map_err(external)?;
        }
        Err(DataFusionError::Internal("too many tries".to_owned()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.board.take());
        drop(self.children.take());
        drop(self.membership.take());
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: this may be a thread of another runtime.
            runtime.shutdown_background();
        }
    }
}

fn listen(settings: &config::Cluster, is_local: bool) -> Result<TcpListener, ClusterError> {
    let address = match is_local {
        true => "127.0.0.1:0".parse().map_err(ClusterError::tls)?,
        false => std::net::SocketAddr::new(settings.bind, settings.port),
    };
    let fail = |error| ClusterError::Bind {
        address: address.to_string(),
        error,
    };
    let listener = TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// Settings of jobs, which travel with them.
fn session(auth: &Auth, settings: &config::Cluster, store: &Store) -> SessionConfig {
    let config = auth
        .session()
        .with_ballista_adaptive_query_planner(false)
        .with_ballista_grpc_client_max_message_size(settings.message_bytes);
    session::with_store(config, store).set_str("ballista.scheduler.max_partitions_per_task", "1")
}

/// The scheduler hears of a busy worker when that polls, every five seconds, whatever its heartbeat; one question may get lost. Who is
/// lost is told by [`Members`].
const FORGOTTEN_S: u64 = 15;

/// Starts the scheduler behind its port.
async fn serve(
    auth: &Auth,
    settings: &config::Cluster,
    listener: TcpListener,
    members: &Arc<Members>,
    session: &SessionConfig,
) -> Result<(Scheduler, Arc<dyn Jobs>), ClusterError> {
    let address = listener.local_addr().map_err(ClusterError::tls)?;
    let session = session.clone();
    let seconds = settings.worker_timeout.as_secs().max(FORGOTTEN_S);
    let message = u32::try_from(settings.message_bytes).unwrap_or(u32::MAX);
    let config = SchedulerConfig {
        bind_host: address.ip().to_string(),
        external_host: address.ip().to_string(),
        bind_port: address.port(),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: seconds,
        expire_dead_executor_interval_seconds: (seconds / 5).max(1),
        no_executors_grace_period_seconds: seconds,
        // Results are removed when they have been read, however long that takes.
        finished_job_data_clean_up_interval_seconds: 0,
        finished_job_state_clean_up_interval_seconds: 60,
        grpc_client_max_message_size: message,
        // The guard refuses what was tried twice.
        task_max_failures: 1,
        stage_max_failures: 1,
        override_physical_codec: Some(codec()),
        override_create_grpc_client_endpoint: Some(auth.hook()),
        override_config_producer: Some(Arc::new(move || session.clone())),
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_from_config(&config)
        .await
        .map_err(ClusterError::tls)?;
    let jobs = cluster.job_state();
    let scheduler: Scheduler = create_scheduler(cluster, Arc::new(config))
        .await
        .map_err(ClusterError::tls)?;
    let gate = Gate {
        scheduler: scheduler.clone(),
        members: Arc::clone(members),
        heartbeat: settings.heartbeat,
    };
    let service = SchedulerGrpcServer::new(gate)
        .max_decoding_message_size(settings.message_bytes)
        .max_encoding_message_size(settings.message_bytes);
    let routes = Routes::new(service)
        .into_axum_router()
        .layer(from_fn(workers_only));
    let listener = tokio::net::TcpListener::from_std(listener).map_err(ClusterError::tls)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = auth.server()?.add_routes(Routes::from(routes));
    drop(tokio::spawn(server.serve_with_incoming(incoming)));
    Ok((scheduler, jobs))
}

pub(super) fn codec() -> Arc<TaskCodec<BallistaPhysicalExtensionCodec>> {
    Arc::new(TaskCodec(BallistaPhysicalExtensionCodec::default()))
}

/// What a worker that pulls calls; the rest does not exist.
async fn workers_only(request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/ballista.protobuf.SchedulerGrpc/PollWork"
        | "/ballista.protobuf.SchedulerGrpc/ExecutorStopped" => next.run(request).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
