//! One connection to a metastore and the few calls that we make on it.

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
use hive_metastore::ThriftHiveMetastoreAddPartitionsReqArgsSend as AddPartitions;
use hive_metastore::ThriftHiveMetastoreAlterPartitionsArgsSend as AlterPartitions;
use hive_metastore::ThriftHiveMetastoreCreateDatabaseArgsSend as CreateDatabase;
use hive_metastore::ThriftHiveMetastoreCreateTableArgsSend as CreateTable;
use hive_metastore::ThriftHiveMetastoreDropPartitionByNameArgsSend as DropPartition;
use hive_metastore::ThriftHiveMetastoreGetAllDatabasesArgsSend as GetAllDatabases;
use hive_metastore::ThriftHiveMetastoreGetPartitionsByNamesArgsSend as GetPartitions;
use hive_metastore::ThriftHiveMetastoreGetTableArgsSend as GetTable;
use hive_metastore::ThriftHiveMetastoreGetTableReqArgsSend as GetTableReq;
use hive_metastore::ThriftHiveMetastoreSetUgiArgsSend as SetUgi;
use pilota::AHashMap;
use pilota::FastStr;
use tokio::io::BufReader;
use tokio::net::TcpStream;

use crate::catalog::Change;
use crate::catalog::Partition;
use crate::catalog::keys;
use crate::catalog::metastore::Login;
use crate::catalog::sasl::Sasl;
use crate::catalog::spec;
use crate::catalog::thrift::Connection;
use crate::catalog::thrift::Failure;
use crate::catalog::thrift::Question;
use crate::catalog::thrift::Stream;
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

/// A connection that is logged in.
pub(super) struct Session {
    connection: Connection,
}

impl Session {
    /// Connects, logs in or says who we are.
    pub(super) async fn open(
        address: SocketAddr,
        service: Option<String>,
        login: &Login,
        timeout: Duration,
    ) -> io::Result<Self> {
        let is_framed = login.is_framed && service.is_none();
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match service {
                Some(service) => {
                    let keytab = login.keytab.clone();
                    Box::new(Sasl { service, keytab }.log_in(stream).await?)
                }
                None => Box::new(stream),
            };
            Ok(stream)
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer to the login");
        let done = tokio::time::timeout(timeout, connect).await;
        let stream = done.unwrap_or_else(|_| Err(late())).map_err(silence)?;
        let mut session = Self {
            connection: Connection {
                stream: BufReader::new(stream),
                is_framed,
                patience: timeout,
                calls: 0,
            },
        };
        if !login.is_kerberos {
            let user_name = FastStr::from(login.user.clone());
            let group_names = vec![user_name.clone()];
            session
                .done(SetUgi {
                    user_name,
                    group_names,
                })
                .await?;
        }
        Ok(session)
    }

    /// Values and refusals; the kind of an error says what to do about it.
    async fn done<Q: Question>(&mut self, question: Q) -> io::Result<Q::Value> {
        let answer = self.connection.call(question).await;
        answer.map_err(|failure| match failure {
            Failure::Refused(exception) => refused(&exception),
            Failure::Silent(error) => silence(error),
            Failure::Unknown(text) | Failure::Garbled(text) => io::Error::other(text),
        })
    }

    async fn databases(&mut self) -> io::Result<Vec<String>> {
        let names = self.done(GetAllDatabases {}).await?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// By the call `get_table`, which version 4 does not know any more.
    pub(super) async fn version(&mut self) -> io::Result<&'static str> {
        self.databases().await?;
        let nothing = FastStr::from("klieg_doctor");
        let question = GetTable {
            dbname: nothing.clone(),
            tbl_name: nothing,
        };
        match self.connection.call(question).await {
            Err(Failure::Unknown(_)) => Ok("4"),
            _ => Ok("2 or 3"),
        }
    }

    /// Makes a database where it is missing.
    pub(super) async fn create_database(&mut self, name: &str) -> io::Result<bool> {
        if self.databases().await?.iter().any(|known| known == name) {
            return Ok(false);
        }
        let database = Database {
            name: text(name),
            ..Default::default()
        };
        made(self.done(CreateDatabase { database }).await)
    }

    /// Makes a table where it is missing; `url` says where it lies.
    pub(super) async fn create_table(
        &mut self,
        database: &str,
        table: &Table,
        url: &str,
        user: &str,
    ) -> io::Result<bool> {
        let lower = |kind: &str| kind.to_lowercase();
        let keys = keys(table).into_iter();
        let tbl = HiveTable {
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
        made(self.done(CreateTable { tbl }).await)
    }

    /// Looks at a table; `None` where there is none. `get_table_req`, since version 4 has no `get_table`.
    pub(super) async fn table(&mut self, database: &str, name: &str) -> io::Result<Option<Found>> {
        let req = GetTableRequest {
            db_name: FastStr::from(database.to_owned()),
            tbl_name: FastStr::from(name.to_owned()),
            ..Default::default()
        };
        let found = match self.done(GetTableReq { req }).await {
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
        &mut self,
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
        self.done(AddPartitions { request }).await?;
        Ok(())
    }

    /// Adds partitions that are missing, changes the others, drops what is gone; files are never touched. Where all must change at
    /// once, missing ones are added empty, and one transaction gives all their folders.
    pub(super) async fn publish(&mut self, database: &str, change: &Change) -> io::Result<()> {
        let table = &change.table;
        let (db_name, tbl_name) = (
            FastStr::from(database.to_owned()),
            FastStr::from(table.name),
        );
        let names = change.there.iter();
        let names = names.map(|partition| FastStr::from(spec(table, &partition.values, "/")));
        let question = GetPartitions {
            db_name: db_name.clone(),
            tbl_name: tbl_name.clone(),
            names: names.collect(),
        };
        let known = self.done(question).await?;
        let (new, changed) = new_and_changed(database, change, &known);
        if !new.is_empty() {
            self.add(database, table, new).await?;
        }
        if !changed.is_empty() {
            let question = AlterPartitions {
                db_name: db_name.clone(),
                tbl_name: tbl_name.clone(),
                new_parts: changed,
            };
            self.done(question).await?;
        }
        for values in &change.gone {
            let question = DropPartition {
                db_name: db_name.clone(),
                tbl_name: tbl_name.clone(),
                part_name: FastStr::from(spec(table, values, "/")),
                delete_data: false,
            };
            match self.done(question).await {
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

/// What is to be told where nobody answered or the login failed.
fn silence(error: io::Error) -> io::Error {
    use io::ErrorKind as Kind;
    let message = error.to_string();
    let hint = "; is this the metastore's port, and do hive.metastore.sasl.enabled and hive.metastore.thrift.framed.transport.enabled agree with it?";
    match error.kind() {
        Kind::PermissionDenied => error,
        _ if message.contains("Kerberos") => io::Error::new(Kind::PermissionDenied, message),
        Kind::TimedOut => error,
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe => {
            io::Error::new(Kind::ConnectionRefused, format!("{message}{hint}"))
        }
        _ => io::Error::new(Kind::ConnectionRefused, message),
    }
}
