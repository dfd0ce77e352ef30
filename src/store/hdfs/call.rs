//! One place for time-outs, repetition and new clients.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;

use hdfs_native::Client;
use hdfs_native::ClientBuilder;
use hdfs_native::HdfsError;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;

use crate::config::ConfError;
use crate::config::Hadoop;
use crate::config::Location;
use crate::store::hdfs::error::io_error;
use crate::store::hdfs::error::read_error;
use crate::store::hdfs::target::Target;
use crate::store::is_unavailable;

/// Threads of the runtime: a Kerberos library may block some of them.
const RUNTIME_THREADS: usize = 4;
/// How long calls that are under way are waited for in the end.
const END_MAX: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// A cluster and how it is called.
#[derive(Debug)]
pub(super) struct Cluster {
    url: String,
    hadoop: Hadoop,
    namenodes_key: Option<String>,
    contact: Mutex<Contact>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// A client and its settings; replaced as a whole.
#[derive(Debug)]
struct Contact {
    client: Client,
    settings: BTreeMap<String, String>,
    /// Counts the clients of a cluster.
    number: u64,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Pieces that were asked for ahead are on their way still, and a Kerberos library must not be in use when the process ends. A
            // call that never ends is not waited for. This thread may be one of another runtime, which must not wait itself.
            let end = std::thread::spawn(move || runtime.shutdown_timeout(END_MAX));
            drop(end.join());
        }
    }
}

impl Cluster {
    pub(super) fn open(location: &Location, hadoop: &Hadoop) -> Result<Self, ConfError> {
        check_keytab(hadoop)?;
        let target = Target::find(location, hadoop)?;
        let no_client = |text: String| ConfError::NoFileSystem(format!("{}: {text}", target.url));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("hdfs")
            .enable_all()
            .build()
            .map_err(|error| no_client(error.to_string()))?;
        let client = client(&target.url, &target.settings, hadoop, runtime.handle());
        Ok(Self {
            contact: Mutex::new(Contact {
                client: client.map_err(|error| no_client(error.to_string()))?,
                settings: target.settings,
                number: 0,
            }),
            url: target.url,
            hadoop: hadoop.clone(),
            namenodes_key: target.namenodes_key,
            runtime: Some(runtime),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn hadoop(&self) -> &Hadoop {
        &self.hadoop
    }

    /// Returns the client, and its number for [`Self::renew`].
    pub(super) fn client(&self) -> (Client, u64) {
        let contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        (contact.client.clone(), contact.number)
    }

    pub(super) fn handle(&self) -> io::Result<&Handle> {
        let runtime = self.runtime.as_ref();
        let handle = runtime.map(Runtime::handle);
        handle.ok_or_else(|| io::Error::other("the client of HDFS has ended"))
    }

    /// Calls once and waits at most `limit`.
    pub(super) fn call<T, F>(
        &self,
        what: &str,
        limit: Duration,
        work: impl FnOnce(Client) -> F,
    ) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        self.call_with(what, (limit, io_error), work)
    }

    fn call_with<T, F>(
        &self,
        what: &str,
        (limit, error): (Duration, fn(HdfsError) -> io::Error),
        work: impl FnOnce(Client) -> F,
    ) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let (send, receive) = mpsc::sync_channel(1);
        let (client, number) = self.client();
        let work = work(client);
        let task = self.handle()?.spawn(async move {
            // Nobody waits any more after the time-out.
            drop(send.send(work.await));
        });
        match receive.recv_timeout(limit) {
            Ok(done) => done.map_err(error),
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                self.renew(number);
                Err(self.silence(what, limit))
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other(format!(
                "{what}: the client of HDFS failed"
            ))),
        }
    }

    pub(super) fn silence(&self, what: &str, limit: Duration) -> io::Error {
        let seconds = limit.as_secs_f64();
        let text = format!("{} gave no answer to `{what}` in {seconds} s", self.url);
        io::Error::new(io::ErrorKind::TimedOut, text)
    }

    /// Calls what may be repeated until it succeeds, fails for good, or `hadoop.patience` is over.
    pub(super) fn repeat<T, F>(&self, what: &str, work: impl Fn(Client) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let limit = self.hadoop.call_timeout;
        self.persist(self.hadoop.patience, || self.call(what, limit, &work))
    }

    /// The same for what reads from DataNodes.
    pub(super) fn repeat_read<T, F>(&self, what: &str, work: impl Fn(Client) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let how = (self.hadoop.call_timeout, read_error as fn(_) -> _);
        self.persist(self.hadoop.patience, || self.call_with(what, how, &work))
    }

    /// Tries until it succeeds, fails for good, or `patience` is over.
    pub(super) fn persist<T>(
        &self,
        patience: Duration,
        mut work: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match work() {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !is_unavailable(&error) || start.elapsed() + pause >= patience {
                return Err(error);
            }
            std::thread::sleep(jitter(pause));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes a new client: the old one stays with a NameNode that does not answer. The others are asked first now. Of calls that waited
    /// together, the first does it for all.
    pub(super) fn renew(&self, number: u64) {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        if contact.number != number {
            return;
        }
        let mut settings = contact.settings.clone();
        if let Some(key) = &self.namenodes_key
            && let Some(namenodes) = settings.get_mut(key)
            && let Some((first, others)) = namenodes.split_once(',')
        {
            *namenodes = format!("{others},{first}");
        }
        let Ok(handle) = self.handle() else { return };
        if let Ok(client) = client(&self.url, &settings, &self.hadoop, handle) {
            *contact = Contact {
                client,
                settings,
                number: number + 1,
            };
        }
    }
}

/// A keytab that cannot be read would pass for a ticket that is missing.
fn check_keytab(hadoop: &Hadoop) -> Result<(), ConfError> {
    let Some(keytab) = &hadoop.keytab else {
        return Ok(());
    };
    let opened = std::fs::File::open(keytab).map(drop);
    opened.map_err(|error| ConfError::Read {
        path: format!("hadoop.keytab {}", keytab.display()),
        error,
    })
}

/// Between three quarters of a pause and all of it, so that many runs do not come at once.
fn jitter(pause: Duration) -> Duration {
    let spread = std::process::id().wrapping_add(pause.subsec_millis()) % 100;
    pause - pause / 4 * spread / 100
}

fn client(
    url: &str,
    settings: &BTreeMap<String, String>,
    hadoop: &Hadoop,
    handle: &Handle,
) -> hdfs_native::Result<Client> {
    let mut builder = ClientBuilder::new()
        .with_url(url)
        .with_config(settings.iter())
        .with_io_runtime(handle.clone());
    if let Some(user) = &hadoop.user {
        builder = builder.with_user(user);
    }
    // A principal alone would keep tokens from being used.
    if let (Some(principal), Some(keytab)) = (&hadoop.principal, &hadoop.keytab) {
        builder = builder
            .with_kerberos_principal(principal)
            .with_kerberos_keytab(keytab.display().to_string());
    }
    builder.build()
}
