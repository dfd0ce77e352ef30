//! `klieg gc`: removes what runs have replaced and nobody needs any more.

use std::io::Write as _;

use anyhow::Context as _;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::cli::run;
use crate::store;
use crate::store::Store;

/// Remove what runs have replaced and nobody needs any more
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg gc -D warehouse=/data/spot
  klieg gc --keep 7d -D warehouse=/data/spot

What was replaced longer than `keep` ago goes; it cannot be rolled back to any more. Every
run that publishes does this with the configured `keep`.")]
pub(super) struct Args {
    /// Instead of the configured `keep`, such as 7d
    #[arg(long, value_name = "TIME")]
    keep: Option<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut layers = args.site.layers()?;
    if let Some(keep) = &args.keep {
        layers.define("keep", keep)?;
    }
    let config = layers.check()?;
    let store = Store::open(&config)?;
    store.check_folder(store.root())?;
    let cleared =
        store::clear_trash(&store, config.keep, run::now()).context("nothing more was removed")?;
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &cleared)?;
        writeln!(out)?;
    } else {
        for run in &cleared {
            writeln!(out, "removed what {run} had replaced")?;
        }
    }
    Ok(exit::DONE)
}
