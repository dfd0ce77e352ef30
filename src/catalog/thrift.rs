//! Calls of a metastore in Thrift's binary protocol, bare or in frames of a length of 4 bytes, one after the other on a connection.
//!
//! Messages are those that `hive_metastore` has from Hive's own description. Its client is left alone: it holds the decoders of the
//! answers of all 200 calls, for two protocols, and they were a third of this crate's machine code.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use hive_metastore as hive;
use pilota::thrift::ApplicationException;
use pilota::thrift::Message;
use pilota::thrift::TAsyncBinaryProtocol;
use pilota::thrift::TAsyncInputProtocol as _;
use pilota::thrift::TMessageIdentifier;
use pilota::thrift::TMessageType;
use pilota::thrift::TOutputProtocol as _;
use pilota::thrift::ThriftException;
use pilota::thrift::binary::TBinaryProtocol;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;

/// The longest frame that is read: that of Thrift's servers.
const FRAME_MAX: u32 = 16 << 20;

/// A question of a call.
pub(super) trait Question: Message {
    /// Name of the call.
    const NAME: &'static str;
    /// What the metastore says to it.
    type Answer: Message + Debug;
    /// What it says if nothing is wrong.
    type Value;

    /// The value, or the exception.
    fn value(answer: Self::Answer) -> Result<Self::Value, Self::Answer>;
}

macro_rules! calls {
    ($($name:literal: $question:ident, $answer:ident, $value:ty;)*) => {$(
        impl Question for hive::$question {
            const NAME: &'static str = $name;
            type Answer = hive::$answer;
            type Value = $value;

            fn value(answer: Self::Answer) -> Result<$value, Self::Answer> {
                match answer {
                    hive::$answer::Ok(value) => Ok(value),
                    exception => Err(exception),
                }
            }
        }
    )*};
}

calls! {
    "add_partitions_req": ThriftHiveMetastoreAddPartitionsReqArgsSend,
        ThriftHiveMetastoreAddPartitionsReqResultRecv, hive::AddPartitionsResult;
    "alter_partitions": ThriftHiveMetastoreAlterPartitionsArgsSend, ThriftHiveMetastoreAlterPartitionsResultRecv, ();
    "create_database": ThriftHiveMetastoreCreateDatabaseArgsSend, ThriftHiveMetastoreCreateDatabaseResultRecv, ();
    "create_table": ThriftHiveMetastoreCreateTableArgsSend, ThriftHiveMetastoreCreateTableResultRecv, ();
    "drop_partition_by_name": ThriftHiveMetastoreDropPartitionByNameArgsSend,
        ThriftHiveMetastoreDropPartitionByNameResultRecv, bool;
    "get_all_databases": ThriftHiveMetastoreGetAllDatabasesArgsSend,
        ThriftHiveMetastoreGetAllDatabasesResultRecv, Vec<pilota::FastStr>;
    "get_partitions_by_names": ThriftHiveMetastoreGetPartitionsByNamesArgsSend,
        ThriftHiveMetastoreGetPartitionsByNamesResultRecv, Vec<hive::Partition>;
    "get_table": ThriftHiveMetastoreGetTableArgsSend, ThriftHiveMetastoreGetTableResultRecv, hive::Table;
    "get_table_req": ThriftHiveMetastoreGetTableReqArgsSend, ThriftHiveMetastoreGetTableReqResultRecv, hive::GetTableResult;
    "set_ugi": ThriftHiveMetastoreSetUgiArgsSend, ThriftHiveMetastoreSetUgiResultRecv, Vec<pilota::FastStr>;
}

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What became of a call that has no value.
#[derive(Debug)]
pub(super) enum Failure {
    /// The metastore cannot take the call, as one that it does not know (Thrift's `TApplicationException`).
    Unknown(String),
    /// It names an exception.
    Refused(String),
    /// Its answer is none in this protocol.
    Garbled(String),
    /// There was no answer.
    Silent(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Silent(error)
    }
}

impl From<ThriftException> for Failure {
    fn from(error: ThriftException) -> Self {
        match error {
            ThriftException::Transport(error) => {
                Self::Silent(io::Error::new(error.kind(), error.message().to_string()))
            }
            ThriftException::Application(error) => Self::Unknown(error.message().to_string()),
            ThriftException::Protocol(error) => Self::Garbled(error.to_string()),
        }
    }
}

/// A connection to a metastore.
pub(super) struct Connection {
    pub(super) stream: BufReader<Box<dyn Stream>>,
    pub(super) is_framed: bool,
    /// How long an answer is waited for.
    pub(super) patience: Duration,
    pub(super) calls: i32,
}

impl Connection {
    pub(super) async fn call<Q: Question>(&mut self, question: Q) -> Result<Q::Value, Failure> {
        let patience = self.patience;
        let answer = tokio::time::timeout(patience, self.exchange(&question)).await;
        answer.unwrap_or_else(|_| {
            let text = format!("no answer to {} in {patience:?}", Q::NAME);
            Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
        })
    }

    async fn exchange<Q: Question>(&mut self, question: &Q) -> Result<Q::Value, Failure> {
        self.calls += 1;
        let message = written(question, self.calls)?;
        if self.is_framed {
            let length = u32::try_from(message.len()).map_err(io::Error::other)?;
            self.stream.write_all(&length.to_be_bytes()).await?;
        }
        self.stream.write_all(&message).await?;
        self.stream.flush().await?;
        if self.is_framed {
            let length = self.stream.read_u32().await?;
            if length > FRAME_MAX {
                return Err(Failure::Garbled(format!("a frame of {length} bytes")));
            }
        }
        let mut protocol = TAsyncBinaryProtocol::new(&mut self.stream);
        let start = protocol.read_message_begin().await?;
        if start.message_type == TMessageType::Exception {
            let error = ApplicationException::decode_async(&mut protocol).await?;
            return Err(Failure::Unknown(error.message().to_string()));
        }
        if start.sequence_number != self.calls {
            let text = format!("answer {} to call {}", start.sequence_number, self.calls);
            return Err(Failure::Garbled(text));
        }
        let answer = Q::Answer::decode_async(&mut protocol).await?;
        Q::value(answer).map_err(|exception| Failure::Refused(format!("{exception:?}")))
    }
}

fn written<Q: Question>(question: &Q, number: i32) -> Result<BytesMut, ThriftException> {
    let mut message = BytesMut::new();
    let mut protocol = TBinaryProtocol::new(&mut message, false);
    let start = TMessageIdentifier::new(Q::NAME.into(), TMessageType::Call, number);
    protocol.write_message_begin(&start)?;
    question.encode(&mut protocol)?;
    protocol.write_message_end()?;
    Ok(message)
}
