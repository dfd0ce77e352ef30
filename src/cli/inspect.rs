//! `klieg inspect`: what an nfcapd file holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;

use crate::cli::exit;
use crate::cli::nfdump_csv;
use crate::cli::render;
use crate::engine::source::Block;
use crate::engine::source::NfcapdFile;
use crate::wire;
use crate::wire::nfcapd;
use crate::wire::nfcapd::Context;
use crate::wire::nfcapd::Flow;
use crate::wire::nfcapd::Statistics;

/// Show header, blocks, counts and first records of an nfcapd file.
///
/// Reads layouts 1 (nfdump 1.6) and 2 (nfdump 1.7), uncompressed, LZO, bzip2, LZ4 and ZSTD. What is damaged is shown with its
/// offset and reason; what can be read behind it is read. stdout carries the result, nothing else.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  klieg inspect nfcapd.201607081005                    counts, rejects, exporters, the first 10 records
  klieg inspect -n 0 --output json nfcapd.201607081005   the same as JSON, without records
  klieg inspect -n all --output csv nfcapd.201607081005  every record in the columns of `nfdump -o csv`")]
pub(super) struct Args {
    /// The file.
    file: PathBuf,
    /// Records to show: a number or `all`.
    #[arg(short = 'n', long, default_value = "10", value_name = "N|all", value_parser = parse_records)]
    records: u64,
    /// Form of the output; csv has the records only.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Decoding threads; the result does not depend on it. Default: the processors of the machine.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
}

fn parse_records(text: &str) -> Result<u64, String> {
    if text == "all" {
        return Ok(u64::MAX);
    }
    text.parse()
        .map_err(|_| format!("`{text}` is neither a number nor `all`"))
}

/// What a file holds. Flows and rejected records together are the records that its blocks announce, without those of other kinds.
#[derive(Debug, Default)]
struct Summary {
    blocks: u64,
    flows: u64,
    first_ms: Option<u64>,
    last_ms: Option<u64>,
    bytes: u64,
    packets: u64,
    unknown_elements: u64,
    unmapped: u64,
    rejected: BTreeMap<&'static str, u64>,
    rejects: Vec<Reject>,
}

#[derive(Debug)]
struct Reject {
    offset: u64,
    error: wire::Error,
    records: u64,
}

/// The most rejects that are listed one by one.
const REJECTS_SHOWN_MAX: usize = 20;

impl Summary {
    fn add_flow(&mut self, flow: &Flow) {
        let record = &flow.record;
        self.flows += 1;
        self.bytes = self.bytes.saturating_add(record.bytes_in);
        self.packets = self.packets.saturating_add(record.packets_in);
        self.first_ms = Some(
            self.first_ms
                .map_or(record.first_ms, |ms| ms.min(record.first_ms)),
        );
        self.last_ms = Some(
            self.last_ms
                .map_or(record.last_ms, |ms| ms.max(record.last_ms)),
        );
    }

    /// Records so far, decoded or rejected.
    fn seen(&self) -> u64 {
        self.flows + self.rejected.values().sum::<u64>()
    }

    fn reject(&mut self, offset: u64, error: wire::Error, records: u64) {
        *self.rejected.entry(error.reason()).or_default() += records;
        if self.rejects.len() < REJECTS_SHOWN_MAX {
            self.rejects.push(Reject {
                offset,
                error,
                records,
            });
        }
    }

    fn merge(&mut self, block: Self) {
        self.blocks += block.blocks;
        self.flows += block.flows;
        self.bytes = self.bytes.saturating_add(block.bytes);
        self.packets = self.packets.saturating_add(block.packets);
        self.first_ms = self.first_ms.into_iter().chain(block.first_ms).min();
        self.last_ms = self.last_ms.into_iter().chain(block.last_ms).max();
        self.unknown_elements += block.unknown_elements;
        self.unmapped += block.unmapped;
        for (reason, records) in block.rejected {
            *self.rejected.entry(reason).or_default() += records;
        }
        let room = REJECTS_SHOWN_MAX - self.rejects.len();
        self.rejects.extend(block.rejects.into_iter().take(room));
    }
}

/// Decodes a block: its counts and its first `limit` flows.
fn inspect_block(block: &Block, limit: u64) -> (Summary, Vec<Flow>) {
    let mut summary = Summary {
        blocks: 1,
        ..Summary::default()
    };
    let mut shown = Vec::new();
    let bytes = match &block.bytes {
        Ok(bytes) => bytes,
        // A kind of block that holds no flows, as far as we know.
        Err(wire::Error::BlockType { .. }) => {
            summary.unknown_elements = u64::from(block.header.records);
            return (summary, shown);
        }
        Err(error) => {
            summary.reject(block.offset, *error, block.header.records_lost());
            return (summary, shown);
        }
    };
    let records = nfcapd::records(bytes, block.header.records, &block.context);
    let mut records = records.with_detail();
    for flow in records.by_ref() {
        match flow {
            Ok(flow) => {
                summary.add_flow(&flow);
                if (shown.len() as u64) < limit {
                    shown.push(flow);
                }
            }
            Err(error) => summary.reject(block.offset, error, 1),
        }
    }
    if let Some((error, lost)) = records.lost() {
        summary.reject(block.offset, error, u64::from(lost));
    }
    summary.unknown_elements = records.unknown_elements();
    summary.unmapped = records.unmapped();
    (summary, shown)
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let path = args.file.display();
    let file = open(&args.file)?;
    let file_bytes = file.metadata().with_context(|| path.to_string())?.len();
    let mut nfcapd = NfcapdFile::open(file, file_bytes).with_context(|| path.to_string())?;
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot count processors")?,
    };
    let mut report = Report {
        args,
        file_bytes,
        shown: Vec::new(),
        summary: Summary::default(),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let context = if args.output == Output::Csv {
        stream_csv(&mut nfcapd, &mut report, threads, &mut out)?
    } else {
        let limit = args.records;
        nfcapd
            .for_each_block(
                threads,
                Context::default(),
                |block| inspect_block(block, limit),
                |(summary, mut flows)| {
                    report.summary.merge(summary);
                    let room = limit.saturating_sub(report.shown.len() as u64);
                    flows.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                    report.shown.append(&mut flows);
                    ControlFlow::Continue(())
                },
            )
            .with_context(|| path.to_string())?
    };
    let (blocks, seen) = (report.summary.blocks, report.summary.seen());
    if let Some((error, lost)) = nfcapd.announced().lost(blocks, seen) {
        report.summary.reject(file_bytes, error, lost);
    }
    if args.output == Output::Csv {
        report.tell_rejects();
    }
    match args.output {
        Output::Table => report.write_table(&nfcapd, &context, &mut out)?,
        Output::Json => report.write_json(&nfcapd, &context, &mut out)?,
        Output::Csv => {}
    }
    out.flush()?;
    let summary = &report.summary;
    Ok(if summary.flows == 0 && !summary.rejects.is_empty() {
        exit::REJECTED
    } else {
        0
    })
}

fn open(path: &Path) -> anyhow::Result<File> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| name.clone())?;
    if !file.metadata().with_context(|| name.clone())?.is_file() {
        return Err(exit::NotAFile { path: name }.into());
    }
    Ok(file)
}

/// Writes records as they come, so that memory does not grow with the file.
fn stream_csv(
    nfcapd: &mut NfcapdFile<File>,
    report: &mut Report<'_>,
    threads: NonZeroUsize,
    out: impl Write,
) -> anyhow::Result<Context> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(nfdump_csv::COLUMNS)?;
    let limit = report.args.records;
    let mut left = limit;
    let mut failure = Ok(());
    let context = nfcapd.for_each_block(
        threads,
        Context::default(),
        |block| render_block(block, limit),
        |(summary, rows)| {
            report.summary.merge(summary);
            for row in rows {
                if left > 0 && failure.is_ok() {
                    left -= 1;
                    failure = writer.write_record(&row);
                }
            }
            match failure {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        },
    )?;
    failure?;
    writer.flush()?;
    Ok(context)
}

fn render_block(block: &Block, limit: u64) -> (Summary, Vec<Vec<String>>) {
    let (summary, flows) = inspect_block(block, limit);
    (summary, flows.iter().map(nfdump_csv::fields).collect())
}

struct Report<'a> {
    args: &'a Args,
    file_bytes: u64,
    shown: Vec<Flow>,
    summary: Summary,
}

impl Report<'_> {
    fn tell_rejects(&self) {
        let path = self.args.file.display();
        for reject in &self.summary.rejects {
            let Reject {
                offset,
                error,
                records,
            } = reject;
            render::fail(&format!(
                "{path}: block at byte {offset}: {error} (records lost: {records})"
            ));
        }
    }

    /// What the writer counted and what was decoded, where they differ.
    fn disagreement(&self, statistics: Option<Statistics>) -> Option<String> {
        let announced = statistics?.flows;
        (announced != self.summary.flows).then(|| {
            format!(
                "the writer counted {announced} flows, {} were decoded",
                self.summary.flows
            )
        })
    }

    fn write_table(
        &self,
        file: &NfcapdFile<File>,
        context: &Context,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let (header, summary) = (file.header(), &self.summary);
        writeln!(out, "file         {}", self.args.file.display())?;
        writeln!(out, "size         {} bytes", self.file_bytes)?;
        writeln!(
            out,
            "layout       {}, compression {}",
            header.layout,
            header.compression.name()
        )?;
        writeln!(
            out,
            "blocks       {} read, {} announced",
            summary.blocks, header.blocks
        )?;
        writeln!(out, "flows        {}", summary.flows)?;
        writeln!(
            out,
            "traffic      {} packets, {} bytes",
            summary.packets, summary.bytes
        )?;
        if let (Some(first), Some(last)) = (summary.first_ms, summary.last_ms) {
            let [first, last] = [first, last].map(nfdump_csv::second);
            writeln!(out, "time         {first} to {last} UTC")?;
        }
        writeln!(out, "exporters    {}", context.exporters().len())?;
        let unknown = (context.unknown_records(), summary.unknown_elements);
        writeln!(
            out,
            "skipped      {} records and {} elements of other kinds",
            unknown.0, unknown.1
        )?;
        writeln!(
            out,
            "rejected     {} records",
            summary.rejected.values().sum::<u64>()
        )?;
        for reject in &summary.rejects {
            let Reject {
                offset,
                error,
                records,
            } = reject;
            writeln!(
                out,
                "  block at byte {offset}: {error} (records lost: {records})"
            )?;
        }
        if summary.unmapped > 0 {
            let lost = "their extension map is missing, so interfaces, AS numbers and the like are";
            writeln!(
                out,
                "warning      {} flows: {lost} unknown",
                summary.unmapped
            )?;
        }
        if let Some(disagreement) = self.disagreement(file.statistics()) {
            writeln!(out, "warning      {disagreement}")?;
        }
        self.write_records(out)
    }

    fn write_records(&self, out: &mut impl Write) -> anyhow::Result<()> {
        if self.shown.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:19} {:>10} {:5} {:>39} {:>5} {:>39} {:>5} {:>10} {:>13}",
            "start (UTC)",
            "seconds",
            "proto",
            "source",
            "port",
            "destination",
            "port",
            "packets",
            "bytes"
        )?;
        for flow in &self.shown {
            let record = &flow.record;
            writeln!(
                out,
                "{:19} {:>10} {:5} {:>39} {:>5} {:>39} {:>5} {:>10} {:>13}",
                nfdump_csv::second(record.first_ms),
                nfdump_csv::duration(record),
                nfdump_csv::protocol_name(record.protocol),
                record.src_ip.to_string(),
                record.src_port,
                record.dst_ip.to_string(),
                record.dst_port,
                record.packets_in,
                record.bytes_in
            )?;
        }
        Ok(())
    }

    fn write_json(
        &self,
        file: &NfcapdFile<File>,
        context: &Context,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let (header, summary) = (file.header(), &self.summary);
        let rejects: Vec<_> = summary.rejects.iter().map(json_reject).collect();
        let exporters: BTreeMap<_, _> = context
            .exporters()
            .iter()
            .map(|(id, exporter)| {
                let sampling = context.sampling(*id);
                (id, json!({"ip": exporter.ip, "version": exporter.version, "domain": exporter.domain, "sampling": sampling}))
            })
            .collect();
        let records: Vec<_> = self.shown.iter().map(json_record).collect();
        let value = json!({
            "file": self.args.file.to_string_lossy(),
            "size_bytes": self.file_bytes,
            "layout": header.layout,
            "compression": header.compression.name(),
            "blocks": summary.blocks,
            "blocks_announced": header.blocks,
            "flows": summary.flows,
            "packets": summary.packets,
            "bytes": summary.bytes,
            "first_ms": summary.first_ms,
            "last_ms": summary.last_ms,
            "rejected": summary.rejected,
            "rejects": rejects,
            "unknown_records": context.unknown_records(),
            "unknown_elements": summary.unknown_elements,
            "records_without_extension_map": summary.unmapped,
            "exporters": exporters,
            "warning": self.disagreement(file.statistics()),
            "records": records,
        });
        serde_json::to_writer_pretty(&mut *out, &value)?;
        writeln!(out)?;
        Ok(())
    }
}

fn json_reject(reject: &Reject) -> serde_json::Value {
    json!({
        "offset": reject.offset,
        "reason": reject.error.reason(),
        "message": reject.error.to_string(),
        "records": reject.records,
    })
}

fn json_record(flow: &Flow) -> serde_json::Value {
    let fields = nfdump_csv::COLUMNS
        .into_iter()
        .zip(nfdump_csv::fields(flow));
    fields
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
