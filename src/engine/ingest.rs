//! One split of raw files to Parquet files, one an hour.
//!
//! ```text
//! files of the split ─► waves of blocks ─► decode, cut by hour (threads) ─► hour's batches ─► encode columns (threads) ─► file
//! ```
//! Decoding and encoding take turns on the same threads. Held at once: a wave of blocks, 2^18 rows as batches, and
//! the encoded columns of one row group an hour.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use serde::Deserialize;
use serde::Serialize;

pub use crate::engine::ingest_error::Failed;
pub use crate::engine::ingest_error::IngestError;
pub use crate::engine::ingest_report::Counts;
pub use crate::engine::ingest_report::Part;
pub use crate::engine::ingest_report::Reject;
pub use crate::engine::ingest_report::SplitReport;

use crate::config::EventTime;
use crate::engine::hour_writer::HourWriters;
use crate::engine::ingest_error::check_length;
use crate::engine::pieces;
use crate::engine::pieces::Piece;
use crate::engine::pieces::PieceReport;
use crate::engine::source;
use crate::engine::source::Block;
use crate::engine::source::NfcapdFile;
use crate::parallel;
use crate::store::Store;
use crate::table::flow::FlowBuilder;
use crate::table::hive::HOUR_MS;
use crate::wire;
use crate::wire::flow::FlowRecord;
use crate::wire::nfcapd;
use crate::wire::nfcapd::Context;

/// Rows that wait as batches before they are encoded.
const PENDING_ROWS: usize = 1 << 18;
/// Rejects that are listed one by one for each reason of a split.
const REJECTS_LISTED: usize = 1000;
/// Files that are on their way to the warehouse at a time.
const UPLOADS: NonZeroUsize = match NonZeroUsize::new(4) {
    Some(uploads) => uploads,
    None => NonZeroUsize::MIN,
};

/// What every split of a day has in common.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct IngestSpec {
    /// First millisecond of the day or hour.
    pub start_ms: u64,
    /// The millisecond after its last.
    pub end_ms: u64,
    /// What is added to times, from which time on, to get those of the table's clock.
    pub offsets: Vec<(u64, i64)>,
    /// True where the files of each hour have a folder of their own.
    pub has_hour_folders: bool,
    /// What decides the hour.
    pub event_time: EventTime,
    /// Folder of this machine for `h=…/part-….snappy.parquet`, or for the files of an hour.
    pub staging: String,
    /// Folder of the warehouse that they are taken to; `None` where `staging` is that.
    pub deliver: Option<String>,
    /// Part of the file names, the same for the same input.
    pub tag: String,
    /// Threads for one split.
    pub threads: NonZeroUsize,
}

impl IngestSpec {
    /// The same, made in a folder of its own below `spool` where the files are delivered from there; never in that of another try,
    /// which may not have noticed yet that it is over.
    pub(super) fn spooled(&self, spool: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut spec = self.clone();
        if spec.deliver.is_some() {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = spool.join(&self.tag).join(number.to_string());
            spec.staging = folder.display().to_string();
        }
        spec
    }
}

/// A raw file as it was when the run was planned.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct RawFile {
    /// Its path.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, nanoseconds since 1970.
    pub modified_ns: u64,
}

/// Files that are decoded together; cut by the files alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Split {
    /// Its number, part of the file names.
    pub id: u32,
    /// Its files in order.
    pub files: Vec<RawFile>,
    /// Which blocks of its only file; `None` for all of all files.
    pub piece: Option<Piece>,
}

/// What a block gave.
#[derive(Default)]
struct Decoded {
    batches: Vec<(u8, RecordBatch)>,
    counts: Counts,
    rejects: Vec<Found>,
    unmapped: u64,
    unknown: u64,
}

/// A reject of a block.
struct Found {
    offset: u64,
    reason: &'static str,
    message: String,
    records: u64,
}

impl Found {
    fn new(offset: u64, error: wire::Error, records: u64) -> Self {
        Self {
            offset,
            reason: error.reason(),
            message: error.to_string(),
            records,
        }
    }
}

impl Decoded {
    fn reject(&mut self, offset: u64, error: wire::Error, records: u64) {
        self.add_reject(Found::new(offset, error, records));
    }

    fn add_reject(&mut self, found: Found) {
        self.counts.reject(found.reason, found.records);
        if self.rejects.len() < REJECTS_LISTED {
            self.rejects.push(found);
        }
    }
}

/// What a task does while it decodes.
pub struct BlockDone {
    /// Raw bytes of the block.
    pub bytes: u64,
    /// Its records.
    pub records: u64,
    /// Bytes that the table files under way take.
    pub held_bytes: usize,
}

/// Decodes a split and writes its rows of the day; `progress` is told of each block, and says whether to go on.
///
/// # Errors
/// A raw file cannot be read or changes, a table file cannot be written, or `progress` ends it. Damaged input is no error: it is counted.
pub fn run(
    store: &Store,
    spec: &IngestSpec,
    split: &Split,
    progress: &mut dyn FnMut(BlockDone) -> ControlFlow<()>,
) -> Result<SplitReport, IngestError> {
    let mut output = Output {
        writers: HourWriters::new(spec, split.id),
        report: SplitReport {
            split: split.id,
            ..SplitReport::default()
        },
        listed: BTreeMap::new(),
    };
    for file in &split.files {
        let part = (file, split.piece.as_ref());
        let counts = run_file((store, spec), part, &mut output, progress)?;
        output.report.files.push((file.path.clone(), counts));
    }
    output.report.parts = output.writers.finish()?;
    deliver(store, spec, &output.report.parts)?;
    Ok(output.report)
}

/// Takes the finished files to the warehouse, where they were made elsewhere.
fn deliver(store: &Store, spec: &IngestSpec, parts: &[Part]) -> Result<(), IngestError> {
    let Some(folder) = &spec.deliver else {
        return Ok(());
    };
    let deliver = |part: &Part| -> std::io::Result<()> {
        let (from, to) = (
            Path::new(&spec.staging).join(&part.path),
            Path::new(folder).join(&part.path),
        );
        store.files().make_folder(to.parent().unwrap_or(&to))?;
        store.files().upload(&from, &to)?;
        std::fs::remove_file(from)
    };
    let done = parallel::map(UPLOADS, parts, deliver);
    for (part, done) in parts.iter().zip(done) {
        done.map_err(|error| IngestError::Write {
            path: store.url(&Path::new(folder).join(&part.path)),
            error: error.into(),
        })?;
    }
    Ok(())
}

/// What a split has made so far.
struct Output {
    writers: HourWriters,
    report: SplitReport,
    /// Rejects met of each reason.
    listed: BTreeMap<&'static str, usize>,
}

impl Output {
    fn block_done(&self, bytes: u64, decoded: &Decoded) -> BlockDone {
        BlockDone {
            bytes,
            records: decoded.counts.read,
            held_bytes: self.writers.held_bytes(),
        }
    }

    fn reject(&mut self, file: &str, found: Found) {
        let count = self.listed.entry(found.reason).or_default();
        *count += 1;
        if *count <= REJECTS_LISTED {
            self.report.rejects.push(Reject {
                file: file.to_owned(),
                offset: found.offset,
                reason: found.reason.to_owned(),
                message: found.message,
                records: found.records,
            });
        }
    }

    /// Takes what a block of a file gave.
    fn take(&mut self, file: &str, decoded: Decoded) -> Result<(), IngestError> {
        self.report.unmapped += decoded.unmapped;
        self.report.unknown += decoded.unknown;
        for reject in decoded.rejects {
            self.reject(file, reject);
        }
        for (hour, batch) in decoded.batches {
            self.writers.push(hour, batch)?;
        }
        if self.writers.pending_rows() >= PENDING_ROWS {
            self.writers.flush()?;
        }
        Ok(())
    }
}

/// Decodes a file, or a piece of it.
fn run_file(
    (store, spec): (&Store, &IngestSpec),
    (file, piece): (&RawFile, Option<&Piece>),
    output: &mut Output,
    progress: &mut dyn FnMut(BlockDone) -> ControlFlow<()>,
) -> Result<Counts, IngestError> {
    let read_error = |error| IngestError::Read {
        path: file.path.clone(),
        error,
    };
    let mut counts = Counts::default();
    let path = Path::new(&file.path);
    let (open, bytes) = store.files().open(path).map_err(read_error)?;
    check_length(file, bytes)?;
    let mut nfcapd = match NfcapdFile::open(open, file.bytes) {
        Ok(nfcapd) => nfcapd,
        Err(source::Error::Io(error)) => return Err(read_error(error)),
        // Nobody knows how many records it would have had; it counts as one.
        Err(source::Error::Format(error)) => {
            counts.reject(error.reason(), 1);
            output.reject(&file.path, Found::new(0, error, 1));
            output.report.unreadable_bytes += file.bytes;
            return Ok(counts);
        }
    };
    let announced = nfcapd.announced();
    let before = pieces::enter(&mut nfcapd, piece).map_err(read_error)?;
    let (mut taken, mut blocks) = (Ok(()), 0);
    let context = nfcapd.for_each_block(
        spec.threads,
        Context::after(&before),
        |block| decode(spec, block),
        |(bytes, decoded)| {
            blocks += 1;
            let goes_on = progress(output.block_done(bytes, &decoded));
            counts.add(&decoded.counts);
            let path = &file.path;
            taken = match goes_on {
                ControlFlow::Continue(()) => output.take(path, decoded),
                ControlFlow::Break(()) => Err(IngestError::Cancelled { path: path.clone() }),
            };
            match taken {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        },
    );
    let context = context.map_err(read_error)?;
    output.report.unknown += context.unknown_records();
    taken?;
    if piece.is_some() {
        output.report.piece = Some(PieceReport {
            blocks,
            before,
            said: context.said(),
            announced,
        });
    } else if let Some((error, lost)) = announced.lost(blocks, counts.read) {
        counts.reject(error.reason(), lost);
        output.reject(&file.path, Found::new(file.bytes, error, lost));
    }
    let entry = store.files().status(path).map_err(read_error)?;
    check_length(file, entry.map_or(0, |entry| entry.bytes))?;
    Ok(counts)
}

fn decode(spec: &IngestSpec, block: &Block) -> (u64, Decoded) {
    let size = u64::from(block.header.size);
    let mut decoded = Decoded::default();
    let bytes = match &block.bytes {
        Ok(bytes) => bytes,
        // A kind of block that holds no flows, as far as we know.
        Err(wire::Error::BlockType { .. }) => {
            decoded.unknown = u64::from(block.header.records);
            return (size, decoded);
        }
        Err(error) => {
            decoded.reject(block.offset, *error, block.header.records_lost());
            return (size, decoded);
        }
    };
    let mut hours: BTreeMap<u8, FlowBuilder> = BTreeMap::new();
    let mut records = nfcapd::records(bytes, block.header.records, &block.context);
    for flow in records.by_ref() {
        match flow {
            Ok(flow) if spec.event_time == EventTime::Received && flow.record.received_ms == 0 => {
                decoded.add_reject(Found {
                    offset: block.offset,
                    reason: "no_received_time",
                    message:
                        "the collector stored no time of receipt; use ingest.event_time: start"
                            .to_owned(),
                    records: 1,
                });
            }
            Ok(flow) => keep(
                spec,
                &flow.record,
                &block.context,
                &mut hours,
                &mut decoded.counts,
            ),
            Err(error) => decoded.reject(block.offset, error, 1),
        }
    }
    if let Some((error, lost)) = records.lost() {
        decoded.reject(block.offset, error, u64::from(lost));
    }
    decoded.unmapped = records.unmapped();
    decoded.unknown = records.unknown_elements();
    for (hour, mut builder) in hours {
        // Columns of one builder have one length: it cannot fail.
        decoded
            .batches
            .extend(builder.finish().ok().map(|batch| (hour, batch)));
    }
    (size, decoded)
}

fn keep(
    spec: &IngestSpec,
    record: &FlowRecord,
    context: &nfcapd::Context,
    hours: &mut BTreeMap<u8, FlowBuilder>,
    counts: &mut Counts,
) {
    counts.read += 1;
    let event_ms = match spec.event_time {
        EventTime::Start => record.first_ms,
        EventTime::Received => record.received_ms,
    };
    if event_ms < spec.start_ms || event_ms >= spec.end_ms {
        counts.outside += 1;
        return;
    }
    let mut offsets = spec.offsets.iter().rev();
    let offset = offsets.find(|(from, _)| *from <= event_ms);
    let local_ms = event_ms.saturating_add_signed(offset.map_or(0, |(_, offset)| *offset));
    let hour = u8::try_from(local_ms / HOUR_MS % 24).unwrap_or(0);
    counts.kept += 1;
    let sampling = match (record.sampled, context.sampling(record.exporter_id)) {
        (true, rate) if rate > 1 => Some(rate),
        (true, _) => None,
        (false, _) => Some(1),
    };
    hours
        .entry(hour)
        .or_default()
        .push(record, (event_ms, local_ms), sampling);
}
