//! Reads a file of HDFS in order, one piece ahead, or here and there in small pieces.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::Bytes;
use hdfs_native::Client;
use hdfs_native::file::FileReader;

use crate::store::hdfs::call::Cluster;
use crate::store::hdfs::error::read_error;

/// Bytes that are asked for at once.
const PIECE: u64 = 4 << 20;
/// The same after a jump: who jumps may want a few bytes only.
const PIECE_AFTER_JUMP: u64 = 64 << 10;

/// An open file.
pub(super) struct HdfsSource {
    cluster: Arc<Cluster>,
    path: String,
    reader: Arc<FileReader>,
    bytes: u64,
    position: u64,
    /// The piece at hand and where it starts.
    piece: (u64, Bytes),
    /// The piece that is on its way, where it starts, and how long it is.
    next: Option<(u64, u64, Receiver<hdfs_native::Result<Bytes>>)>,
}

impl fmt::Debug for HdfsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{} at {}",
            self.cluster.url(),
            self.path,
            self.position
        )
    }
}

/// Opens a file; the lengths that the NameNode gives for it differ while it is being written.
pub(super) async fn open(client: Client, path: String) -> hdfs_native::Result<(FileReader, bool)> {
    let status = client.get_file_info(&path).await?;
    if status.isdir {
        return Err(hdfs_native::HdfsError::IsADirectoryError(path));
    }
    let reader = client.read(&path).await?;
    let is_open = reader.file_length() != status.length;
    Ok((reader, is_open))
}

impl HdfsSource {
    pub(super) fn open(cluster: &Arc<Cluster>, path: &str) -> io::Result<Self> {
        let (reader, is_open) = cluster.repeat("open", |client| open(client, path.to_owned()))?;
        if is_open {
            let text = "still being written; run again when its writer has closed it";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        Ok(Self {
            cluster: Arc::clone(cluster),
            path: path.to_owned(),
            bytes: reader.file_length() as u64,
            reader: Arc::new(reader),
            position: 0,
            piece: (0, Bytes::new()),
            next: None,
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.bytes
    }

    /// Asks for a piece of at most `most` bytes.
    fn ask(
        &self,
        start: u64,
        most: u64,
    ) -> io::Result<(u64, u64, Receiver<hdfs_native::Result<Bytes>>)> {
        let length = most.min(self.bytes - start);
        let (send, receive) = mpsc::sync_channel(1);
        let reader = Arc::clone(&self.reader);
        let (offset, count) = (to_usize(start)?, to_usize(length)?);
        drop(self.cluster.handle()?.spawn(async move {
            // Nobody waits any more where the source was dropped.
            drop(send.send(reader.read_range(offset, count).await));
        }));
        Ok((start, length, receive))
    }

    /// Waits for a piece; a reader whose DataNode fell silent is replaced.
    fn fetch(&mut self, start: u64, most: u64) -> io::Result<Bytes> {
        let patience = self.cluster.hadoop().patience;
        let cluster = Arc::clone(&self.cluster);
        cluster.persist(patience, || {
            let asked = match self.next.take() {
                Some(next) if next.0 == start => next,
                _ => self.ask(start, most)?,
            };
            let limit = self.limit(asked.1);
            let failure = match asked.2.recv_timeout(limit) {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(error)) => {
                    let error = read_error(error);
                    io::Error::new(io::ErrorKind::ConnectionReset, format!("read: {error}"))
                }
                Err(_) => cluster.silence("read", limit),
            };
            let path = self.path.clone();
            let (reader, _) = cluster.repeat("open", |client| open(client, path.clone()))?;
            if reader.file_length() as u64 == self.bytes {
                self.reader = Arc::new(reader);
                Err(failure)
            } else {
                Err(io::Error::other("its length changed while it was read"))
            }
        })
    }

    /// A block read waits for its DataNode; the client tries another after its own time-out.
    fn limit(&self, length: u64) -> Duration {
        let mebibytes = u32::try_from(length >> 20).unwrap_or(u32::MAX);
        self.cluster.hadoop().data_timeout + Duration::from_secs(1) * mebibytes
    }
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Read for HdfsSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let (start, piece) = &self.piece;
        let is_at_hand = self.position >= *start && self.position - start < piece.len() as u64;
        if !is_at_hand {
            let is_in_order = self.position == start + piece.len() as u64;
            let start = self.position;
            let most = if is_in_order { PIECE } else { PIECE_AFTER_JUMP };
            let piece = self.fetch(start, most)?;
            let end = start + piece.len() as u64;
            self.piece = (start, piece);
            if is_in_order {
                let ahead = || self.ask(end, PIECE);
                self.next = (end < self.bytes).then(ahead).transpose()?;
            }
        }
        let (start, piece) = &self.piece;
        let from = to_usize(self.position - start)?;
        let rest = piece.get(from..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for HdfsSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
