//! Hive's metastore, versions 2.3 to 4, over Thrift.
//!
//! ```text
//! call ─► a thread of its own ─► each URI in turn: connect, log in, the calls ─► answer
//!   │        waited for at most CALLS_MAX × call_timeout
//!   └─ again, with growing pauses, for at most patience, where nobody answered: every call may be repeated
//! ```

use std::io;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use crate::catalog::Change;
use crate::catalog::gssapi::Keytab;
use crate::catalog::keys;
use crate::catalog::session::Found;
use crate::catalog::session::Session;
use crate::catalog::session::added;
use crate::config::ConfError;
use crate::config::Config;
use crate::config::HadoopConf;
use crate::table::catalog::Table;

/// Time-outs of one call that a session may take.
const CALLS_MAX: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Metastores listen here unless told otherwise.
const PORT: u16 = 9083;

/// Why a metastore was not told.
#[derive(Debug, thiserror::Error)]
pub enum MetastoreError {
    /// Its configuration.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// Nothing says where it is.
    #[error(
        "catalog.kind is metastore and nothing says where it is; set catalog.uris, or hive.metastore.uris in hive-site.xml (HIVE_CONF_DIR, catalog.conf_dir)"
    )]
    NoUri,
    /// A URI that is none.
    #[error("`{0}` is no URI of a metastore; write thrift://host:9083")]
    Uri(String),
    /// What it, or the network, says. The kind tells what to do.
    #[error("{uri}: {error}")]
    Call {
        /// Where.
        uri: String,
        /// What.
        #[source]
        error: io::Error,
    },
}

/// How we log in.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) is_kerberos: bool,
    pub(super) is_framed: bool,
    /// `hive/_HOST@REALM`.
    pub(super) service: String,
    pub(super) keytab: Option<Keytab>,
    pub(super) user: String,
}

/// A metastore.
#[derive(Clone, Debug)]
pub struct Metastore {
    uris: Vec<Uri>,
    login: Login,
    database: String,
    timeout: Duration,
    patience: Duration,
}

#[derive(Clone, Debug)]
struct Uri {
    text: String,
    host: String,
    port: u16,
}

impl Uri {
    fn parse(text: &str) -> Result<Self, MetastoreError> {
        let none = || MetastoreError::Uri(text.to_owned());
        let rest = text.strip_prefix("thrift://").ok_or_else(none)?;
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| none())?),
            None => (rest, PORT),
        };
        if host.is_empty() {
            return Err(none());
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

/// What a table is otherwise than ours, a sentence each with what it must be; empty where it is as ours.
pub type Differences = Vec<String>;

impl Metastore {
    /// Reads where the metastore is and how it is spoken to. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The configuration cannot be read, or names no metastore.
    pub fn open(config: &Config) -> Result<Self, MetastoreError> {
        let (catalog, hadoop) = (&config.catalog, &config.hadoop);
        let conf = HadoopConf::read_hive(hadoop, catalog.conf_dir.as_ref())?;
        let mut uris = catalog.uris.clone();
        if uris.is_empty() {
            let named = conf.get("hive.metastore.uris").unwrap_or_default();
            let named = named.split(',').map(str::trim);
            uris = named
                .filter(|uri| !uri.is_empty())
                .map(str::to_owned)
                .collect();
        }
        let uris: Vec<_> = uris
            .iter()
            .map(|uri| Uri::parse(uri))
            .collect::<Result<_, _>>()?;
        if uris.is_empty() {
            return Err(MetastoreError::NoUri);
        }
        let is_true = |key: &str| conf.get(key).as_deref() == Some("true");
        let keytab = hadoop.keytab.clone().zip(hadoop.principal.clone());
        let environment = |name: &str| hadoop.environment.get(name).cloned();
        let user = hadoop.user.clone();
        let user = user
            .or_else(|| environment("HADOOP_USER_NAME"))
            .or_else(|| environment("USER"))
            .unwrap_or_else(|| "klieg".to_owned());
        Ok(Self {
            uris,
            login: Login {
                is_kerberos: is_true("hive.metastore.sasl.enabled"),
                is_framed: is_true("hive.metastore.thrift.framed.transport.enabled"),
                service: conf
                    .get("hive.metastore.kerberos.principal")
                    .unwrap_or_default(),
                keytab: keytab.map(|(path, principal)| Keytab { principal, path }),
                user,
            },
            database: catalog.database.clone(),
            timeout: catalog.call_timeout,
            patience: catalog.patience,
        })
    }

    /// Where it is: all URIs.
    #[must_use]
    pub fn uris(&self) -> String {
        let texts: Vec<_> = self.uris.iter().map(|uri| uri.text.as_str()).collect();
        texts.join(",")
    }

    /// How it is spoken to: `SASL`, `framed` or `buffered`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match (self.login.is_kerberos, self.login.is_framed) {
            (true, _) => "SASL with Kerberos",
            (_, true) => "framed",
            _ => "buffered",
        }
    }

    /// Returns its version, as far as its calls tell: `2 or 3`, or `4`.
    ///
    /// # Errors
    /// Nobody answers, or the login fails.
    pub fn version(&self) -> Result<&'static str, MetastoreError> {
        self.call(|mut session| async move { session.version().await })
    }

    /// Makes database and tables where they are missing; returns the names of what was made. `url` says where a folder lies.
    ///
    /// # Errors
    /// Nobody answers, or the metastore refuses.
    pub fn create(
        &self,
        tables: &[Table],
        url: &dyn Fn(&std::path::Path) -> String,
    ) -> Result<Vec<String>, MetastoreError> {
        let (database, user) = (self.database.clone(), self.login.user.clone());
        let tables: Vec<_> = tables
            .iter()
            .map(|table| (table.clone(), url(&table.folder)))
            .collect();
        self.call(move |mut session| {
            let (database, user, tables) = (database.clone(), user.clone(), tables.clone());
            async move {
                let mut made = Vec::new();
                if session.create_database(&database).await? {
                    made.push(format!("database {database}"));
                }
                for (table, url) in &tables {
                    if session.create_table(&database, table, url, &user).await? {
                        made.push(format!("table {database}.{}", table.name));
                    }
                }
                Ok(made)
            }
        })
    }

    /// Compares tables with ours, over one connection; `None` for one that is missing. `url` says where a folder lies.
    ///
    /// # Errors
    /// Nobody answers, or the metastore refuses.
    pub fn compare(
        &self,
        tables: &[Table],
        url: &dyn Fn(&std::path::Path) -> String,
    ) -> Result<Vec<Option<Differences>>, MetastoreError> {
        let database = self.database.clone();
        let names: Vec<_> = tables.iter().map(|table| table.name).collect();
        let found = self.call(move |mut session| {
            let (database, names) = (database.clone(), names.clone());
            async move {
                let mut found = Vec::with_capacity(names.len());
                for name in names {
                    found.push(session.table(&database, name).await?);
                }
                Ok(found)
            }
        })?;
        let pairs = found.into_iter().zip(tables);
        let compared = pairs.map(|(found, table)| {
            found.map(|found| differences(&found, table, &url(&table.folder)))
        });
        Ok(compared.collect())
    }

    /// Tells of a publication.
    ///
    /// # Errors
    /// Nobody answers, a table is missing, or the metastore refuses.
    pub fn publish(&self, changes: &[Change]) -> Result<(), MetastoreError> {
        let (database, changes) = (self.database.clone(), changes.to_vec());
        self.call(move |mut session| {
            let (database, changes) = (database.clone(), changes.clone());
            async move {
                for change in &changes {
                    let told = session.publish(&database, change).await;
                    told.map_err(|error| of_table(&error, &database, change.table.name))?;
                }
                Ok(())
            }
        })
    }

    /// Adds the partitions of a change that are missing.
    ///
    /// # Errors
    /// Nobody answers, the table is missing, or the metastore refuses.
    pub fn add(&self, change: &Change) -> Result<(), MetastoreError> {
        let (database, change) = (self.database.clone(), change.clone());
        self.call(move |mut session| {
            let (database, change) = (database.clone(), change.clone());
            async move {
                let partitions = change.there.iter();
                let partitions = partitions.map(|new| added(&database, &change.table, new));
                let told = session
                    .add(&database, &change.table, partitions.collect())
                    .await;
                told.map_err(|error| of_table(&error, &database, change.table.name))
            }
        })
    }

    /// Calls until it succeeds, is refused, or `patience` is over.
    fn call<T, F>(
        &self,
        work: impl Fn(Session) -> F + Clone + Send + 'static,
    ) -> Result<T, MetastoreError>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>>,
    {
        let (start, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let mut last = None;
            for uri in &self.uris {
                match self.call_once(uri, work.clone()) {
                    Ok(done) => return Ok(done),
                    Err(error) => {
                        let is_final = !is_silence(&error);
                        let uri = uri.text.clone();
                        last = Some(MetastoreError::Call { uri, error });
                        if is_final {
                            break;
                        }
                    }
                }
            }
            match last {
                Some(MetastoreError::Call { uri, error }) => {
                    if !is_silence(&error) || start.elapsed() + pause >= self.patience {
                        return Err(MetastoreError::Call { uri, error });
                    }
                }
                _ => return Err(MetastoreError::NoUri),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// A thread of its own: a resolver or a Kerberos library that blocks holds up nothing for longer than the time-out.
    fn call_once<T, F>(
        &self,
        uri: &Uri,
        work: impl Fn(Session) -> F + Send + 'static,
    ) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>>,
    {
        let (send, receive) = mpsc::sync_channel(1);
        let (uri, login, timeout) = (uri.clone(), self.login.clone(), self.timeout);
        let session = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let unknown = |error: io::Error| {
                    io::Error::new(io::ErrorKind::HostUnreachable, error.to_string())
                };
                let found = tokio::net::lookup_host((uri.host.as_str(), uri.port)).await;
                let mut found = found.map_err(unknown)?;
                let address = found.next().ok_or(io::ErrorKind::HostUnreachable)?;
                let service = login
                    .is_kerberos
                    .then(|| login.service.replace("_HOST", &uri.host));
                work(Session::open(address, service, &login, timeout).await?).await
            })
        };
        let thread = std::thread::Builder::new().name("metastore".to_owned());
        // Nobody waits any more after the time-out.
        drop(thread.spawn(move || drop(send.send(session())))?);
        let limit = timeout * CALLS_MAX;
        receive.recv_timeout(limit).unwrap_or_else(|_| {
            let text = format!("no answer in {} s", limit.as_secs_f64());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }
}

/// Nobody answered; another may, or the same later.
fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::TimedOut
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
    )
}

fn of_table(error: &io::Error, database: &str, table: &str) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; is the table missing? klieg setup makes it",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{database}.{table}: {error}{remedy}"))
}

fn differences(found: &Found, table: &Table, url: &str) -> Differences {
    let lower = |kind: &str| kind.to_lowercase();
    let wanted: Vec<_> = table
        .columns
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), lower(kind.name())))
        .collect();
    let mut differences = column_differences("column", &found.columns, &wanted);
    let wanted_keys: Vec<_> = keys(table)
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), lower(kind)))
        .collect();
    let of_keys = column_differences("partition column", &found.keys, &wanted_keys);
    differences.extend(of_keys);
    let location = found.location.trim_end_matches('/');
    // Hadoop writes file:/path for file:///path.
    let plain = |url: &str| url.replacen("file:///", "file:/", 1);
    if plain(location) != plain(url) {
        differences.push(format!("lies in {location}, must be {url}"));
    }
    if !found.serde.to_lowercase().contains("parquet") {
        differences.push(format!("is stored by {}, must be Parquet", found.serde));
    }
    if found.kind != "EXTERNAL_TABLE" {
        let kind = &found.kind;
        differences.push(format!(
            "is a {kind}, must be external: Hive removes the files of others when it is dropped"
        ));
    }
    differences
}

fn column_differences(
    what: &str,
    found: &[(String, String)],
    wanted: &[(String, String)],
) -> Differences {
    let shown = |column: Option<&(String, String)>| {
        column.map_or("missing".to_owned(), |(name, kind)| {
            format!("`{name} {kind}`")
        })
    };
    // More columns at the end do no harm.
    let pairs = (0..wanted.len()).map(|index| (index, found.get(index), wanted.get(index)));
    let others = pairs.filter(|(_, found, wanted)| found != wanted);
    others
        .map(|(index, found, wanted)| {
            let (found, wanted) = (shown(found), shown(wanted));
            format!("{what} {} is {found}, must be {wanted}", index + 1)
        })
        .collect()
}
