//! `klieg doctor`: what is wrong with a site.

use std::io::Write as _;

use serde_json::json;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::cli::run;
use crate::config::Origin;
use crate::job;
use crate::store::Finding;
use crate::store::Level;

/// Find what is wrong with a site before the first run
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg doctor --config /etc/klieg/site.yaml
  klieg doctor -D warehouse=hdfs://namenode:8020/user/spot --output json

It reads the configuration, asks every NameNode, writes and reads 16 MiB in <warehouse>/.klieg, takes
a lock, looks at ticket, clocks, landing folder, metastore and tables. Each line is ok, warn or FAIL,
with what to do. Exit code: 0 where nothing fails, else by the first failure: 2 configuration,
3 something is missing, 5 rights or tickets, 6 something does not answer, 1 others.")]
pub(super) struct Args {
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let layers = args.site.layers()?;
    let config = layers.check()?;
    let settings: Vec<_> = layers
        .values()
        .filter(|(key, _, origin)| *key == "warehouse" || !matches!(origin, Origin::Default(_)))
        .collect();
    let findings = job::examine(&config, run::now);
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        let settings = settings.iter();
        let settings: Vec<_> = settings
            .map(|(key, value, origin)| json!({ "key": key, "value": value, "origin": origin.to_string() }))
            .collect();
        let value = json!({ "settings": settings, "findings": findings });
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
        return Ok(code(&findings));
    }
    for (key, value, origin) in settings {
        writeln!(out, "      {key:<14} {value}  ({origin})")?;
    }
    for finding in &findings {
        let Finding {
            check,
            level,
            found,
            remedy,
            ..
        } = finding;
        writeln!(out, "{level:<4}  {check:<14} {found}")?;
        if !remedy.is_empty() {
            writeln!(out, "      {:<14} -> {remedy}", "")?;
        }
    }
    let count = |level: Level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    writeln!(
        out,
        "{} ok, {} to mend, {} that make runs fail",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    )?;
    Ok(code(&findings))
}

fn code(findings: &[Finding]) -> u8 {
    let mut failures = findings
        .iter()
        .filter(|finding| finding.level == Level::Fail);
    failures
        .next()
        .map_or(exit::DONE, |first| match first.kind {
            Some(kind) => exit::read_code(&kind.into()),
            None if first.check == "configuration" => exit::USAGE,
            None => exit::FAILED,
        })
}
