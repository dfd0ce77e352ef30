//! HDFS as plans read it: whole files and ranges, nothing else.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hdfs_native::Client;
use object_store::CopyOptions;
use object_store::Error;
use object_store::GetOptions;
use object_store::GetResult;
use object_store::GetResultPayload;
use object_store::ListResult;
use object_store::MultipartUpload;
use object_store::ObjectMeta;
use object_store::ObjectStore;
use object_store::PutMultipartOptions;
use object_store::PutOptions;
use object_store::PutPayload;
use object_store::PutResult;
use object_store::Result;
use object_store::path::Path;

use crate::store::hdfs::call::Cluster;
use crate::store::hdfs::error::read_error;
use crate::store::hdfs::read;
use crate::store::is_unavailable;

const STORE: &str = "hdfs";
const PAUSE: Duration = Duration::from_secs(1);

/// Read-only view of a cluster.
#[derive(Debug)]
pub(super) struct Objects {
    cluster: Arc<Cluster>,
}

impl Objects {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Runs on the runtime of the cluster, with its time-out, again where it may pass.
    async fn call<T, F>(&self, what: &str, work: impl Fn(Client) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let limit = self.cluster.hadoop().data_timeout;
        let patience = self.cluster.hadoop().patience;
        let start = tokio::time::Instant::now();
        loop {
            let (client, number) = self.cluster.client();
            let task = self.cluster.handle()?.spawn(work(client));
            let error = match tokio::time::timeout(limit, task).await {
                Ok(Ok(done)) => match done.map_err(read_error) {
                    Ok(done) => return Ok(done),
                    Err(error) => error,
                },
                Ok(Err(error)) => return Err(io::Error::other(format!("{what}: {error}"))),
                Err(_) => {
                    self.cluster.renew(number);
                    self.cluster.silence(what, limit)
                }
            };
            if !is_unavailable(&error) || start.elapsed() + PAUSE >= patience {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cluster.url())
    }
}

fn path_of(location: &Path) -> String {
    format!("/{location}")
}

fn object_error(location: &Path, error: io::Error) -> Error {
    let path = location.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound {
            path,
            source: error.into(),
        },
        _ => Error::Generic {
            store: STORE,
            source: error.into(),
        },
    }
}

fn read_only() -> Error {
    Error::NotImplemented {
        operation: "anything but reading".to_owned(),
        implementer: STORE.to_owned(),
    }
}

/// Reads ranges of a file that is complete.
async fn read_ranges(
    client: Client,
    path: String,
    ranges: Vec<Range<u64>>,
) -> hdfs_native::Result<Vec<Bytes>> {
    let (reader, is_open) = read::open(client, path.clone()).await?;
    let length = reader.file_length() as u64;
    if is_open || ranges.iter().any(|range| range.end > length) {
        let text = format!("{path}: is shorter than it was, or still being written");
        return Err(hdfs_native::HdfsError::OperationFailed(text));
    }
    let mut pieces = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (start, end) = (range.start, range.end.max(range.start));
        let (Ok(start), Ok(count)) = (usize::try_from(start), usize::try_from(end - start)) else {
            return Err(hdfs_native::HdfsError::InvalidArgument(path));
        };
        pieces.push(reader.read_range(start, count).await?);
    }
    Ok(pieces)
}

#[async_trait]
impl ObjectStore for Objects {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = path_of(location);
        let status = self
            .call("stat", |client| {
                let path = path.clone();
                async move { client.get_file_info(&path).await }
            })
            .await
            .map_err(|error| object_error(location, error))?;
        if status.isdir {
            let error = io::Error::new(io::ErrorKind::NotFound, "is a folder");
            return Err(object_error(location, error));
        }
        let size = status.length as u64;
        let changed = i64::try_from(status.modification_time).unwrap_or(i64::MAX);
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: DateTime::from_timestamp_millis(changed).unwrap_or_default(),
            size,
            e_tag: Some(format!("{:x}-{size:x}", status.modification_time)),
            version: None,
        };
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(size).map_err(|error| Error::Generic {
                store: STORE,
                source: Box::new(error),
            })?,
            None => 0..size,
        };
        let bytes = match options.head {
            true => Bytes::new(),
            false => {
                let mut pieces = self
                    .get_ranges(location, std::slice::from_ref(&range))
                    .await?;
                pieces.pop().unwrap_or_default()
            }
        };
        let stream = futures::stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream),
            meta,
            range,
            attributes: object_store::Attributes::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = self.call("read", |client| {
            read_ranges(client, path_of(location), ranges.to_vec())
        });
        read.await.map_err(|error| object_error(location, error))
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        locations.map(|_| Err(read_only())).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        futures::stream::once(async { Err(read_only()) }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(read_only())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}
