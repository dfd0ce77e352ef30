//! One connection to a metastore and the few calls that we make on it.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hive_metastore::AddPartitionsRequest;
use hive_metastore::Database;
use hive_metastore::FieldSchema;
use hive_metastore::GetTableRequest;
use hive_metastore::Partition as HivePartition;
use hive_metastore::SerDeInfo;
use hive_metastore::StorageDescriptor;
use hive_metastore::Table as HiveTable;
use hive_metastore::ThriftHiveMetastoreClient;
use hive_metastore::ThriftHiveMetastoreClientBuilder;
use pilota::AHashMap;
use pilota::FastStr;
use volo_thrift::ClientError;
use volo_thrift::MaybeException;
use volo_thrift::codec::default::DefaultMakeCodec;

use crate::catalog::Change;
use crate::catalog::Partition;
use crate::catalog::keys;
use crate::catalog::metastore::Login;
use crate::catalog::sasl::SaslTransport;
use crate::catalog::spec;
use crate::table::catalog::Table;

const INPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat";
const OUTPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat";
const SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";
/// The parameter of a partition that names the run that published it.
const RUN: &str = "klieg.run_id";

fn text(text: impl AsRef<str>) -> Option<FastStr> {
    Some(FastStr::from(text.as_ref().to_owned()))
}

/// A table as the metastore has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) columns: Vec<(String, String)>,
    pub(super) keys: Vec<(String, String)>,
    pub(super) location: String,
    pub(super) serde: String,
    pub(super) kind: String,
}

/// A connection.
pub(super) struct Session {
    client: ThriftHiveMetastoreClient,
}

impl Session {
    /// Connects, logs in or says who we are.
    pub(super) async fn open(
        address: SocketAddr,
        service: Option<String>,
        login: &Login,
        timeout: Duration,
    ) -> io::Result<Self> {
        let builder = ThriftHiveMetastoreClientBuilder::new("hms")
            .address(address)
            .rpc_timeout(Some(timeout))
            .connect_timeout(Some(timeout));
        let codec = DefaultMakeCodec::buffered();
        let client = match service {
            Some(service) => builder
                .make_transport(SaslTransport {
                    service,
                    keytab: login.keytab.clone(),
                    patience: timeout,
                })
                .make_codec(codec)
                .build(),
            None if login.is_framed => builder.make_codec(DefaultMakeCodec::framed()).build(),
            None => builder.make_codec(codec).build(),
        };
        let session = Self { client };
        if !login.is_kerberos {
            let user = FastStr::from(login.user.clone());
            done(session.client.set_ugi(user.clone(), vec![user]).await)?;
        }
        Ok(session)
    }

    async fn databases(&self) -> io::Result<Vec<String>> {
        let names = done(self.client.get_all_databases().await)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// By the call `get_table`, which version 4 does not know any more.
    pub(super) async fn version(&self) -> io::Result<&'static str> {
        self.databases().await?;
        let nothing = FastStr::from("klieg_doctor");
        match self.client.get_table(nothing.clone(), nothing).await {
            Err(ClientError::Application(_)) => Ok("4"),
            _ => Ok("2 or 3"),
        }
    }

    /// Makes a database where it is missing.
    pub(super) async fn create_database(&self, name: &str) -> io::Result<bool> {
        if self.databases().await?.iter().any(|known| known == name) {
            return Ok(false);
        }
        let database = Database {
            name: text(name),
            ..Default::default()
        };
        made(done(self.client.create_database(database).await))
    }

    /// Makes a table where it is missing; `url` says where it lies.
    pub(super) async fn create_table(
        &self,
        database: &str,
        table: &Table,
        url: &str,
        user: &str,
    ) -> io::Result<bool> {
        let lower = |kind: &str| kind.to_lowercase();
        let keys = keys(table).into_iter();
        let new = HiveTable {
            table_name: text(table.name),
            db_name: text(database),
            owner: text(user),
            create_time: Some(0),
            last_access_time: Some(0),
            retention: Some(0),
            sd: Some(descriptor(table, url)),
            partition_keys: Some(keys.map(|(name, kind)| field(name, &lower(kind))).collect()),
            parameters: Some(map([("EXTERNAL", "TRUE".to_owned())])),
            table_type: text("EXTERNAL_TABLE"),
            ..Default::default()
        };
        made(done(self.client.create_table(new).await))
    }

    /// Looks at a table; `None` where there is none. `get_table_req`, since version 4 has no `get_table`.
    pub(super) async fn table(&self, database: &str, name: &str) -> io::Result<Option<Found>> {
        let request = GetTableRequest {
            db_name: FastStr::from(database.to_owned()),
            tbl_name: FastStr::from(name.to_owned()),
            ..Default::default()
        };
        let found = match done(self.client.get_table_req(request).await) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?.table,
        };
        let descriptor = found.sd.unwrap_or_default();
        let owned = |text: Option<FastStr>| text.unwrap_or_default().to_string();
        let serde = descriptor.serde_info.unwrap_or_default();
        Ok(Some(Found {
            columns: fields(descriptor.cols),
            keys: fields(found.partition_keys),
            location: owned(descriptor.location),
            serde: owned(serde.serialization_lib),
            kind: owned(found.table_type),
        }))
    }

    /// Adds partitions; those that are there stay as they are.
    pub(super) async fn add(
        &self,
        database: &str,
        table: &Table,
        parts: Vec<HivePartition>,
    ) -> io::Result<()> {
        let request = AddPartitionsRequest {
            db_name: FastStr::from(database.to_owned()),
            tbl_name: FastStr::from(table.name),
            parts,
            if_not_exists: true,
            need_result: Some(false),
            ..Default::default()
        };
        done(self.client.add_partitions_req(request).await)?;
        Ok(())
    }

    /// Adds partitions that are missing, changes the others, drops what is gone; files are never touched. Where all must change at
    /// once, missing ones are added empty, and one transaction gives all their folders.
    pub(super) async fn publish(&self, database: &str, change: &Change) -> io::Result<()> {
        let table = &change.table;
        let (db, name) = (
            FastStr::from(database.to_owned()),
            FastStr::from(table.name),
        );
        let names = change.there.iter();
        let names = names.map(|partition| FastStr::from(spec(table, &partition.values, "/")));
        let known = self
            .client
            .get_partitions_by_names(db.clone(), name.clone(), names.collect());
        let known = done(known.await)?;
        let (new, changed) = new_and_changed(database, change, &known);
        if !new.is_empty() {
            self.add(database, table, new).await?;
        }
        if !changed.is_empty() {
            let altered = self
                .client
                .alter_partitions(db.clone(), name.clone(), changed);
            done(altered.await)?;
        }
        for values in &change.gone {
            let partition = FastStr::from(spec(table, values, "/"));
            let dropped =
                self.client
                    .drop_partition_by_name(db.clone(), name.clone(), partition, false);
            match done(dropped.await) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                dropped => drop(dropped?),
            }
        }
        Ok(())
    }
}

/// Partitions that are to be added, then those that are to be changed.
fn new_and_changed(
    database: &str,
    change: &Change,
    known: &[HivePartition],
) -> (Vec<HivePartition>, Vec<HivePartition>) {
    let table = &change.table;
    let empty = change.empty.as_ref().filter(|_| !known.is_empty());
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for partition in &change.there {
        let values: Vec<_> = partition.values.iter().map(ToString::to_string).collect();
        let is_it = |known: &&HivePartition| {
            let known = known.values.iter().flatten();
            known
                .map(FastStr::as_str)
                .eq(values.iter().map(String::as_str))
        };
        match known.iter().find(is_it) {
            Some(known) => changed.push(updated(known, table, partition)),
            None => {
                let mut all = added(database, table, partition);
                if let Some(empty) = empty {
                    changed.push(all.clone());
                    all.sd = Some(descriptor(table, empty));
                }
                new.push(all);
            }
        }
    }
    (new, changed)
}

fn field(name: &str, kind: &str) -> FieldSchema {
    FieldSchema {
        name: text(name),
        r#type: text(kind),
        comment: None,
    }
}

fn fields(fields: Option<Vec<FieldSchema>>) -> Vec<(String, String)> {
    let owned = |text: Option<FastStr>| text.unwrap_or_default().to_string();
    let fields = fields.into_iter().flatten();
    fields
        .map(|field| (owned(field.name), owned(field.r#type)))
        .collect()
}

fn map<const N: usize>(pairs: [(&'static str, String); N]) -> AHashMap<FastStr, FastStr> {
    let pairs = pairs.into_iter();
    pairs
        .map(|(key, value)| (FastStr::from(key), FastStr::from(value)))
        .collect()
}

fn descriptor(table: &Table, location: &str) -> StorageDescriptor {
    let columns = table.columns.iter();
    StorageDescriptor {
        cols: Some(
            columns
                .map(|(name, kind)| field(name, &kind.name().to_lowercase()))
                .collect(),
        ),
        location: text(location),
        input_format: text(INPUT_FORMAT),
        output_format: text(OUTPUT_FORMAT),
        compressed: Some(false),
        num_buckets: Some(-1),
        serde_info: Some(SerDeInfo {
            name: None,
            serialization_lib: text(SERDE),
            parameters: Some(map([("serialization.format", "1".to_owned())])),
        }),
        bucket_cols: Some(Vec::new()),
        sort_cols: Some(Vec::new()),
        parameters: Some(AHashMap::default()),
        skewed_info: None,
        stored_as_sub_directories: Some(false),
    }
}

/// Statistics that planners read, and our run.
fn parameters(partition: &Partition) -> AHashMap<FastStr, FastStr> {
    map([
        (RUN, partition.run.clone()),
        ("numFiles", partition.files.to_string()),
        ("numRows", partition.rows.to_string()),
        ("totalSize", partition.bytes.to_string()),
    ])
}

pub(super) fn added(database: &str, table: &Table, partition: &Partition) -> HivePartition {
    let values = partition.values.iter();
    HivePartition {
        values: Some(
            values
                .map(|value| FastStr::from(value.to_string()))
                .collect(),
        ),
        db_name: text(database),
        table_name: text(table.name),
        create_time: Some(0),
        last_access_time: Some(0),
        sd: Some(descriptor(table, &partition.location)),
        parameters: Some(parameters(partition)),
        ..Default::default()
    }
}

/// What others have set stays.
fn updated(known: &HivePartition, table: &Table, partition: &Partition) -> HivePartition {
    let mut new = known.clone();
    new.sd = Some(descriptor(table, &partition.location));
    let all = new.parameters.get_or_insert_default();
    all.extend(parameters(partition));
    // Statistics of columns are those of rows that are gone.
    all.remove("COLUMN_STATS_ACCURATE");
    new
}

/// Whether something was made now: whoever came first has made the same.
fn made(made: io::Result<()>) -> io::Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Answers and refusals; the kind of an error says what to do about it.
fn done<T, E: Debug>(answer: Result<MaybeException<T, E>, ClientError>) -> io::Result<T> {
    match answer {
        Ok(MaybeException::Ok(value)) => Ok(value),
        Ok(MaybeException::Exception(exception)) => Err(refused(&format!("{exception:?}"))),
        Err(ClientError::Transport(error)) => Err(unreachable(&error.to_string())),
        Err(error) if error.to_string().contains("timeout") => Err(unreachable(&error.to_string())),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// By the exception that the metastore names; its message is what people read.
fn refused(exception: &str) -> io::Error {
    use io::ErrorKind as Kind;
    let message = exception.split_once("message: Some(\"");
    let message = message.and_then(|(_, rest)| rest.split_once('"'));
    let message = message.map_or(exception, |(message, _)| message);
    let is_denied = [
        "AccessControlException",
        "Permission denied",
        "not authorized",
    ];
    let kind = if is_denied.iter().any(|text| exception.contains(text)) {
        Kind::PermissionDenied
    } else if exception.contains("AlreadyExistsException") {
        Kind::AlreadyExists
    } else if [
        "NoSuchObjectException",
        "UnknownTableException",
        "UnknownDbException",
    ]
    .iter()
    .any(|text| exception.contains(text))
    {
        Kind::NotFound
    } else {
        Kind::Other
    };
    io::Error::new(kind, message.to_owned())
}

fn unreachable(message: &str) -> io::Error {
    use io::ErrorKind as Kind;
    if message.contains("Kerberos") || message.contains("login refused") {
        return io::Error::new(Kind::PermissionDenied, message.to_owned());
    }
    // The client adds all that it knows of the call.
    let message = message.split(", rpc").next().unwrap_or_default();
    let hint = match message.contains("end of file") || message.contains("reset") {
        true => {
            "; is this the metastore's port, and do hive.metastore.sasl.enabled and hive.metastore.thrift.framed.transport.enabled agree with it?"
        }
        false => "",
    };
    let kind = match message.contains("timeout") || message.contains("timed out") {
        true => Kind::TimedOut,
        false => Kind::ConnectionRefused,
    };
    io::Error::new(kind, format!("{message}{hint}"))
}
