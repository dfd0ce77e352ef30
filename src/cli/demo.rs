//! `klieg demo`: a synthetic labelled day from raw files to the ranked list, and how much of what is hidden the list shows.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::groups;
use crate::cli::groups::By;
use crate::cli::render;
use crate::cli::run;
use crate::cli::run::Range;
use crate::config::Layers;
use crate::job::Job;
use crate::store::Store;
use crate::synth;
use crate::synth::SynthDay;
use crate::synth::SynthParams;
use crate::table::hive::Day;
use crate::table::hive::HOUR_MS;
use crate::wire::flow::FlowRecord;
use crate::wire::nfcapd::Compression;
use crate::word::Compat;
use crate::word::flow;
use crate::word::flow::FlowFields;
use crate::word::flow::Protocol;

/// The job of the demo.
const JOB: &str = include_str!("../../jobs/flow.yaml");
/// How far down the list is looked for attacks.
const DEPTHS: [usize; 2] = [100, 1000];

/// Generate a labelled day, find its suspicious connections, say how many hidden attacks the list shows
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg demo
  klieg demo --flows 3000000 --seed 7 --out /tmp/demo
  klieg demo --cluster local:2

OUT becomes a warehouse: look into it with
  klieg top flow --date 2016-07-08 -D warehouse=$PWD/OUT
and at the truth in OUT/truth.")]
pub(super) struct Args {
    /// Folder for raw files, tables and results
    #[arg(long, default_value = "klieg-demo", value_name = "DIR")]
    out: PathBuf,
    /// Day in UTC
    #[arg(long, default_value = "2016-07-08", value_name = "DAY")]
    date: String,
    /// About so many records; the smallest day, with all attacks, has about 100,000
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    flows: u64,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Run plans on workers: local:N for N processes of this machine
    #[arg(long, value_name = "local:N")]
    cluster: Option<String>,
    /// Rows of the list
    #[arg(short = 'n', default_value_t = 20, value_name = "N")]
    rows: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let day: Day = args.date.parse()?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let out = args
        .out
        .canonicalize()
        .with_context(|| args.out.display().to_string())?;
    render::say(&format!(
        "demo: generating about {} records of {day} in {}",
        args.flows,
        out.display()
    ));
    let generated = synth::generate(&SynthParams {
        day,
        flows: args.flows,
        seed: args.seed,
    });
    let landing = out.join("flow").join("landing");
    let written = synth::write(&generated, Compression::Lz4, &landing, &out.join("truth"))?;
    let others = std::fs::read_dir(&landing)?
        .count()
        .saturating_sub(written.files);
    if others > 0 {
        render::say(&format!(
            "demo: {} holds {others} other raw files; those near {day} are read too",
            landing.display()
        ));
    }
    let flags = [("warehouse".to_owned(), out.display().to_string())];
    let job = Job::try_new(
        Layers::try_new(std::iter::empty())?,
        ("jobs/flow.yaml", JOB),
        &flags,
        None,
    )?;
    let range = Range {
        cluster: args.cluster.clone(),
        ..Range::ONE
    };
    let results = run::execute(&job, &[day.into()], &range)?;
    let code = results.exit_code();
    if code != 0 {
        return Ok(code);
    }
    let all = groups::read(&Store::local(&out), day)?;
    groups::print_table(&groups::ranked(&all, By::List, args.rows)?, By::List)?;
    print_found(&generated, &all)?;
    Ok(0)
}

/// Attacks with at least one record in a listed group, by order and depth.
fn print_found(generated: &SynthDay, all: &arrow::array::RecordBatch) -> anyhow::Result<()> {
    let mut attacks_of: BTreeMap<(String, String), BTreeSet<u16>> = BTreeMap::new();
    for labelled in &generated.records {
        let Some(attack) = labelled.attack else {
            continue;
        };
        for key in keys(&labelled.record) {
            attacks_of.entry(key).or_default().insert(attack);
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    writeln!(
        out,
        "hidden attacks with a group in the first rows, of {}:",
        generated
            .attacks
            .iter()
            .filter(|attack| attack.records > 0)
            .count()
    )?;
    writeln!(out, "{:<28} {:>6} {:>6}", "order", DEPTHS[0], DEPTHS[1])?;
    let mut listed = BTreeSet::new();
    for (by, name) in By::ALL {
        let mut counts = Vec::new();
        for depth in DEPTHS {
            let rows = groups::ranked(all, by, depth)?;
            let mut found = BTreeSet::new();
            for row in 0..rows.num_rows() {
                let key = (
                    groups::cell(&rows, "ip", row)?,
                    groups::cell(&rows, "word", row)?,
                );
                found.extend(attacks_of.get(&key).into_iter().flatten().copied());
            }
            counts.push(found.len());
            if by == By::List {
                listed = found;
            }
        }
        writeln!(out, "{name:<28} {:>6} {:>6}", counts[0], counts[1])?;
    }
    print_attacks(&mut out, generated, &listed)?;
    Ok(())
}

fn print_attacks(
    out: &mut impl std::io::Write,
    generated: &SynthDay,
    listed: &BTreeSet<u16>,
) -> std::io::Result<()> {
    writeln!(
        out,
        "\nlisted: in the first {} rows of the list; absent: the day is too small to hold it",
        DEPTHS[1]
    )?;
    for attack in &generated.attacks {
        let sign = match (attack.records, listed.contains(&attack.id)) {
            (0, _) => "absent",
            (_, true) => "listed",
            (_, false) => "missed",
        };
        let host = attack
            .hosts
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        writeln!(
            out,
            "{sign}  {:<24} {:<10} {:>6} records  {host}",
            attack.kind, attack.technique, attack.records
        )?;
    }
    Ok(())
}

/// IP and word of both ends, as the list has them.
fn keys(record: &FlowRecord) -> [(String, String); 2] {
    let fields = FlowFields {
        hour: u8::try_from(record.first_ms / HOUR_MS % 24).unwrap_or(0),
        src_port: record.src_port,
        dst_port: record.dst_port,
        protocol: Protocol::of_number(record.protocol),
        bytes: i64::try_from(record.bytes_in).unwrap_or(i64::MAX),
        packets: i64::try_from(record.packets_in).unwrap_or(i64::MAX),
    };
    let [source, destination] = flow::words(&fields, Compat::Mended);
    [
        (record.src_ip.to_string(), source.to_string()),
        (record.dst_ip.to_string(), destination.to_string()),
    ]
}
