//! `klieg synth`: a labelled day of nfcapd files.

use std::io::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use crate::synth;
use crate::synth::SynthParams;
use crate::table::hive::Day;
use crate::wire::nfcapd::Compression;

/// Generate a labelled day of nfcapd files: office and data centre with hidden attacks
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg synth --date 2016-07-08 --out /tmp/day
  klieg synth --date 2016-07-08 --flows 10000000 --seed 7 --compression none --out /tmp/day

Writes nfcapd files of five minutes to OUT/flow/landing, so that OUT can be a warehouse.
Writes to OUT/truth: labels.parquet (file, record, attack, kind), attacks.json (kind, hosts,
times, records, ATT&CK technique), site.yaml (networks and roles, no file for --config).
The same seed, date and size give the same bytes.")]
pub(super) struct Args {
    /// Day in UTC
    #[arg(long, value_name = "DAY")]
    date: String,
    /// About so many records; the smallest day, with all attacks, has about 100,000
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    flows: u64,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Compression of the blocks
    #[arg(long, value_enum, default_value = "lz4")]
    compression: CompressionArg,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum CompressionArg {
    /// Not at all
    None,
    /// As nfcapd -y
    Lz4,
    /// As nfcapd -Z, newer versions only
    Zstd,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let day: Day = args.date.parse()?;
    let params = SynthParams {
        day,
        flows: args.flows,
        seed: args.seed,
    };
    let generated = synth::generate(&params);
    let compression = match args.compression {
        CompressionArg::None => Compression::None,
        CompressionArg::Lz4 => Compression::Lz4,
        CompressionArg::Zstd => Compression::Zstd,
    };
    let landing = args.out.join("flow").join("landing");
    let written = synth::write(&generated, compression, &landing, &args.out.join("truth"))?;
    let hidden = generated
        .records
        .iter()
        .filter(|labelled| labelled.attack.is_some())
        .count();
    let value = json!({
        "day": day.to_string(),
        "files": written.files,
        "bytes": written.bytes,
        "records": generated.records.len(),
        "attacks": generated.attacks.len(),
        "attack_records": hidden,
        "landing": landing.display().to_string(),
        "truth": args.out.join("truth").display().to_string(),
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &value)?;
    writeln!(out)?;
    Ok(0)
}
