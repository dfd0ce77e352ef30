//! `klieg worker`: runs the tasks of drivers.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::exit;
use crate::cli::job_args::SiteArgs;
use crate::cli::job_args::parse_time;
use crate::cli::render;
use crate::engine::cluster;
use crate::engine::cluster::Doing;
use crate::engine::cluster::OwnFolder;
use crate::engine::cluster::Seek;
use crate::engine::cluster::Where;
use crate::store::Store;

/// Run tasks for the drivers of a pool (klieg run --cluster POOL)
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg worker --pool nightly --config /etc/klieg/site.yaml --slots 4 --memory 6GiB
  klieg worker --pool nightly -D warehouse=hdfs://ns/user/spot --bind 0.0.0.0 --external-host $(hostname -f)
  klieg worker --driver edge1:40400 -D pool.secret=/etc/klieg/pool.pem --config /etc/klieg/site.yaml

It looks for a driver for ever, by one question a second or two to the warehouse, and starts a process for each
run that it works for. SIGTERM: it takes no more tasks, and goes when what it did is not needed any more, at the
latest after --grace; nothing is lost by any end of it. Drivers must be the same build of klieg.
klieg emit systemd|yarn|kubernetes writes its unit.")]
pub(super) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    /// The pool whose drivers it works for
    #[arg(long, value_name = "NAME", required_unless_present_any = ["child", "driver"])]
    pool: Option<String>,
    /// The address of its drivers instead, where it cannot read pool files; needs pool.secret or cluster.tls
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, conflicts_with = "pool")]
    driver: Option<(String, u16)>,
    /// Tasks at a time; all processors unless given
    #[arg(long, value_name = "N")]
    slots: Option<NonZeroUsize>,
    /// Memory of the whole process, such as 6GiB; the same as -D memory=SIZE
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Folder for shuffles, spilled data and files on their way; the same as -D work_dir=DIR
    #[arg(long, value_name = "DIR")]
    work_dir: Option<String>,
    /// Address to listen on, 0.0.0.0 for all; the same as -D cluster.bind=ADDRESS
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Name or address by which the driver and other workers call this machine; the same as -D cluster.external_host=HOST
    #[arg(long, value_name = "HOST")]
    external_host: Option<String>,
    /// How long after SIGTERM it may go on with its tasks, and hand out what they made
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    grace: Duration,
    /// Address of /healthz and /metrics (Prometheus), or off; port 0 for any, told on stderr. Unless given, 127.0.0.1:9810, or
    /// any other port where that is taken
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_status)]
    status: Option<Status>,
    /// Serve the one driver run of which standard input tells
    #[arg(long, hide = true)]
    child: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    if args.child {
        let variables = std::env::vars_os();
        let texts = variables.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let served = cluster::serve(texts, tell);
        // Standard input is still read from, which would hold the end up.
        return match served {
            Ok(()) => Ok(exit::DONE),
            Err(error) => Err(error.into()),
        };
    }
    if let Some(pool) = &args.pool {
        cluster::check_pool(pool)?;
    }
    let mut layers = args.site.layers()?;
    for (key, value) in [
        ("memory", &args.memory),
        ("work_dir", &args.work_dir),
        ("cluster.bind", &args.bind),
        ("cluster.external_host", &args.external_host),
    ] {
        if let Some(value) = value {
            layers.define(key, value)?;
        }
    }
    let config = layers.check()?;
    let slots = args.slots.unwrap_or(config.threads);
    let least = cluster::least_memory(slots.get());
    if config.memory_bytes < least {
        let text = format!(
            "--memory {} MiB is too little for {slots} tasks at a time: the least that works is {} MiB",
            config.memory_bytes >> 20,
            least >> 20
        );
        return Err(exit::UsageText(text).into());
    }
    let folder = OwnFolder::take(&config.work_dir).map_err(cluster::ClusterError::WorkDir)?;
    let place = Where {
        seek: match (&args.driver, &args.pool) {
            (Some((host, port)), _) => Seek::Driver(host.clone(), *port),
            (None, pool) => Seek::Pool(pool.clone().unwrap_or_default()),
        },
        slots: slots.get(),
        memory_bytes: config.memory_bytes,
        work_dir: folder.path().to_owned(),
        grace: args.grace,
    };
    let doing = Arc::new(Doing::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(listen(args.status, &doing))?;
    let store = Store::open(&config)?;
    let looked = cluster::look_for_drivers(&config, &store, &place, &doing, tell);
    drop(folder);
    looked?;
    tell("left");
    // As whoever sent the signal expects.
    Ok(exit::DONE)
}

/// Where questions about a worker are answered unless it is told.
const STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9810);

/// Where questions about a worker are answered.
#[derive(Clone, Copy, Debug)]
enum Status {
    Off,
    At(SocketAddr),
}

fn parse_status(text: &str) -> Result<Status, String> {
    match text {
        "off" => Ok(Status::Off),
        _ => text
            .parse()
            .map(Status::At)
            .map_err(|_| format!("`{text}` is neither address:port nor off")),
    }
}

/// Takes `host:port`, or `[address]:port`.
fn parse_address(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|&port| port > 0);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
    match (is_host, port) {
        (true, Some(port)) => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

/// Hears signals and answers questions about this process.
async fn listen(status: Option<Status>, doing: &Arc<Doing>) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = signal(kind).context("cannot listen for signals")?;
        let doing = Arc::clone(doing);
        drop(tokio::spawn(async move {
            if signal.recv().await.is_some() {
                doing.is_leaving.store(true, Ordering::Relaxed);
            }
        }));
    }
    let bind = tokio::net::TcpListener::bind::<SocketAddr>;
    let listener = match status {
        Some(Status::Off) => return Ok(()),
        Some(Status::At(address)) => bind(address).await.map_err(|error| {
            exit::UsageText(format!("--status {address}: cannot listen there: {error}"))
        })?,
        // Another worker of this machine may have the first.
        None => match bind(STATUS).await {
            Ok(listener) => listener,
            Err(_) => bind((STATUS.ip(), 0).into())
                .await
                .context("cannot listen on 127.0.0.1; --status off answers no questions")?,
        },
    };
    tell(&format!(
        "answers /healthz and /metrics on {}",
        listener.local_addr()?
    ));
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(doing));
    drop(tokio::spawn(
        async move { axum::serve(listener, router).await },
    ));
    Ok(())
}

async fn health(State(doing): State<Arc<Doing>>) -> (StatusCode, &'static str) {
    match doing.is_leaving.load(Ordering::Relaxed) {
        true => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
        false => (StatusCode::OK, "ok\n"),
    }
}

async fn metrics(State(doing): State<Arc<Doing>>) -> String {
    let serving = u8::from(doing.is_serving.load(Ordering::Relaxed));
    let (runs, errors) = (
        doing.runs.load(Ordering::Relaxed),
        doing.errors.load(Ordering::Relaxed),
    );
    format!(
        "# HELP klieg_worker_serving 1 while it works for a driver.\n# TYPE klieg_worker_serving gauge\nklieg_worker_serving {serving}\n\
         # HELP klieg_worker_runs_total Driver runs that it has worked for.\n# TYPE klieg_worker_runs_total counter\nklieg_worker_runs_total {runs}\n\
         # HELP klieg_worker_errors_total Looks for a driver that failed.\n# TYPE klieg_worker_errors_total counter\nklieg_worker_errors_total {errors}\n"
    )
}

/// One line on stderr with the time.
fn tell(text: &str) {
    render::log(&format!("worker {}: {text}", std::process::id()));
}
