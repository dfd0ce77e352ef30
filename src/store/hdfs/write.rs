//! Writes whole files. A write that fails is never continued: the file is written again.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use hdfs_native::Client;
use hdfs_native::HdfsError;
use hdfs_native::WriteOptions;
use hdfs_native::file::FileWriter;
use tokio::sync::mpsc;

use crate::store::fail;
use crate::store::hdfs::call::Cluster;
use crate::store::is_unavailable;

/// Bytes that go to the client at once.
const PIECE: usize = 4 << 20;
/// Pieces that wait for the client.
const PIECES: usize = 2;
/// A file is one block, so that a DataNode that is lost costs one try: at least so many bytes (the NameNode takes no less).
pub(super) const BLOCK_MIN: u64 = 1 << 20;
/// Larger files have several blocks of this size.
const BLOCK_MAX: u64 = 1 << 30;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// More than the bytes, so that a complete file never looks like one whose writer stands between two blocks.
fn block_size(bytes: u64) -> u64 {
    let whole = (bytes / BLOCK_MIN + 1) * BLOCK_MIN;
    whole.min(BLOCK_MAX)
}

impl Cluster {
    /// Writes a small file in the place of what is there.
    pub(super) fn write(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.try_writes(path, bytes.len() as u64, || {
            let (send, receive) = mpsc::channel(PIECES);
            // Room is there: the channel is new.
            drop(send.try_send(bytes.clone()));
            drop(send);
            self.write_once(path, bytes.len() as u64, mode, receive)
        })
    }

    /// Copies a file of this machine.
    pub(super) fn upload(&self, local: &Path, path: &str, mode: u32) -> io::Result<()> {
        let bytes = std::fs::metadata(local)?.len();
        self.try_writes(path, bytes, || {
            let mut file = File::open(local)?;
            let (send, receive) = mpsc::channel(PIECES);
            std::thread::scope(|scope| {
                let reading = scope.spawn(move || send_file(&mut file, bytes, &send));
                let written = self.write_once(path, bytes, mode, receive);
                let read = reading.join();
                let read = read.map_err(|_| io::Error::other("reading it failed"))?;
                written.and(read)
            })
        })
    }

    /// Tries until it is written: a DataNode that is gone is offered by the NameNode for minutes.
    fn try_writes(
        &self,
        path: &str,
        bytes: u64,
        mut write: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match write().and_then(|()| self.check_length(path, bytes)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // What is left is in the way of nobody else; the file system may be unreachable for it as well.
            drop(self.call("delete", self.hadoop().call_timeout, |client| {
                let path = path.to_owned();
                async move { client.delete(&path, false).await }
            }));
            let patience = match is_unavailable(&error) {
                true => self.hadoop().patience,
                false => self.hadoop().write_patience,
            };
            if is_final(&error) || start.elapsed() + pause >= patience {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn check_length(&self, path: &str, bytes: u64) -> io::Result<()> {
        let status = self.repeat("stat", |client| {
            let path = path.to_owned();
            async move { client.get_file_info(&path).await }
        })?;
        if status.length as u64 == bytes {
            return Ok(());
        }
        let text = format!("has {} bytes after {bytes} were written", status.length);
        Err(io::Error::other(text))
    }

    fn write_once(
        &self,
        path: &str,
        bytes: u64,
        mode: u32,
        receive: mpsc::Receiver<Bytes>,
    ) -> io::Result<()> {
        let options = WriteOptions::default()
            .block_size(block_size(bytes))
            .permission(mode)
            .overwrite(true);
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let limit = self.hadoop().data_timeout + Duration::from_secs(1) * mebibytes;
        self.call("write", limit, |client| {
            write_pieces(client, path.to_owned(), options, receive)
        })
    }
}

/// True for errors that writing again does not mend.
pub(super) fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::PermissionDenied
            | Kind::QuotaExceeded
            | Kind::NotFound
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidInput
    )
}

fn send_file(file: &mut File, bytes: u64, send: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let size = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let mut piece = vec![0; size];
        file.read_exact(&mut piece)?;
        left -= size as u64;
        if send.blocking_send(piece.into()).is_err() {
            // The writer failed and says why.
            return Ok(());
        }
    }
    Ok(())
}

async fn write_pieces(
    client: Client,
    path: String,
    options: WriteOptions,
    mut receive: mpsc::Receiver<Bytes>,
) -> Result<(), HdfsError> {
    let mut writer = client.create(&path, options).await?;
    while let Some(piece) = receive.recv().await {
        writer.write_bytes(piece).await?;
        let kind = path.rsplit('.').next().unwrap_or_default();
        fail::point(&format!("in the middle of a file of {kind}"));
    }
    close(&mut writer).await
}

/// Closes a file. The client asks the NameNode to complete it the instant that the DataNodes have its last byte, which they report to the
/// NameNode a few milliseconds later; refused, it waits for half a second. So it is given its turns in slow time.
pub(super) async fn close(writer: &mut FileWriter) -> Result<(), HdfsError> {
    let mut closing = pin!(writer.close());
    let mut turns = tokio::time::interval(TURN);
    loop {
        turns.tick().await;
        if let Poll::Ready(closed) = futures::poll!(closing.as_mut()) {
            return closed;
        }
    }
}

const TURN: Duration = Duration::from_millis(25);
