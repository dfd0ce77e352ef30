//! Thrift over SASL with Kerberos, as Hive's `TSaslTransport` speaks it: a login in frames of status, length and bytes, then frames of
//! length and bytes, wrapped as both sides agreed (RFC 4752).

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::net::tcp;
use tokio::net::unix;

use crate::catalog::gssapi::Context;
use crate::catalog::gssapi::Keytab;

/// States of a login (Thrift's `TSaslTransport.NegotiationStatus`).
const START: u8 = 1;
const OK: u8 = 2;
const BAD: u8 = 3;
const ERROR: u8 = 4;
const COMPLETE: u8 = 5;
/// Protections in the order of strength (RFC 4752, 3.1): none, integrity, confidentiality.
const NONE: u8 = 1;
const INTEGRITY: u8 = 2;
const CONFIDENTIALITY: u8 = 4;
/// The longest frame that is read, and what we say that we take.
const FRAME_MAX: u32 = 0x00ff_ffff;
/// Bytes that are wrapped at a time, well below what any service takes.
const CHUNK: usize = 60_000;

/// As whom, and to whom, to log in.
#[derive(Clone, Debug)]
pub(super) struct Sasl {
    /// Principal of the service, such as `hive/host@REALM`.
    pub(super) service: String,
    /// `None` for the ticket cache.
    pub(super) keytab: Option<Keytab>,
}

impl Sasl {
    /// Logs in; what is written to and read from the stream that this returns is wrapped on its way.
    pub(super) async fn log_in(&self, mut stream: TcpStream) -> io::Result<UnixStream> {
        let (context, protection) = login(&mut stream, self).await?;
        let (near, far) = UnixStream::pair()?;
        let (from_service, to_service) = stream.into_split();
        let (from_us, to_us) = far.into_split();
        let context = Arc::new(Mutex::new(context));
        // They end with the connection.
        drop(tokio::spawn(send_all(
            from_us,
            to_service,
            Arc::clone(&context),
            protection,
        )));
        drop(tokio::spawn(receive_all(
            from_service,
            to_us,
            context,
            protection,
        )));
        Ok(near)
    }
}

/// Logs in; returns the context and the protection that was agreed.
async fn login(stream: &mut TcpStream, to: &Sasl) -> io::Result<(Context, u8)> {
    let mut context = Context::new(&to.service, to.keytab.as_ref())?;
    let (token, mut is_complete) = context.step(&[])?;
    send(stream, START, b"GSSAPI").await?;
    send(stream, OK, &token).await?;
    while !is_complete {
        let (_, challenge) = receive(stream).await?;
        let (token, complete) = context.step(&challenge)?;
        is_complete = complete;
        send(stream, OK, &token).await?;
    }
    let (_, offer) = receive(stream).await?;
    let offered = context.unwrap(&offer)?.first().copied().unwrap_or(NONE);
    let strongest = [CONFIDENTIALITY, INTEGRITY, NONE]
        .into_iter()
        .find(|protection| offered & protection != 0);
    let protection = strongest.ok_or_else(|| io::Error::other("no protection is offered"))?;
    let most = match protection {
        NONE => 0,
        _ => FRAME_MAX,
    };
    let [_, a, b, c] = most.to_be_bytes();
    let answer = context.wrap(&[protection, a, b, c], false)?;
    send(stream, COMPLETE, &answer).await?;
    match receive(stream).await? {
        (COMPLETE, _) => Ok((context, protection)),
        (status, _) => Err(io::Error::other(format!("login ended in status {status}"))),
    }
}

async fn send(stream: &mut TcpStream, status: u8, bytes: &[u8]) -> io::Result<()> {
    let mut frame = vec![status];
    frame.extend(length(bytes)?);
    frame.extend(bytes);
    stream.write_all(&frame).await
}

fn length(bytes: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok(length.to_be_bytes())
}

async fn receive(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let status = stream.read_u8().await?;
    let bytes = read_frame(stream).await?;
    if status == BAD || status == ERROR {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("login refused: {text}"),
        ));
    }
    Ok((status, bytes))
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length > FRAME_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut bytes = Vec::new();
    from.take(length.into()).read_to_end(&mut bytes).await?;
    match u32::try_from(bytes.len()) {
        Ok(read) if read == length => Ok(bytes),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn lock(context: &Mutex<Context>) -> MutexGuard<'_, Context> {
    context.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send_all(
    mut from: unix::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    context: Arc<Mutex<Context>>,
    protection: u8,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        let bytes = chunk.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let wrapped = match protection {
            NONE => bytes.to_vec(),
            _ => lock(&context).wrap(bytes, protection == CONFIDENTIALITY)?,
        };
        to.write_all(&length(&wrapped)?).await?;
        to.write_all(&wrapped).await?;
    }
}

async fn receive_all(
    mut from: tcp::OwnedReadHalf,
    mut to: unix::OwnedWriteHalf,
    context: Arc<Mutex<Context>>,
    protection: u8,
) -> io::Result<()> {
    loop {
        let frame = read_frame(&mut from).await?;
        let bytes = match protection {
            NONE => frame,
            _ => lock(&context).unwrap(&frame)?,
        };
        to.write_all(&bytes).await?;
    }
}
