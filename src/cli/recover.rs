//! `klieg recover`: finishes publications that killed runs have left half done.

use std::io::Write as _;

use serde_json::json;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::cli::render;
use crate::cli::run;
use crate::job;
use crate::job::Recovered;

/// Finish publications that killed runs have left half done
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg recover -D warehouse=hdfs://namenode:8020/user/spot

Every run does this for its own days first; this does it for all. What is in a journal is
complete and verified, so it is always finished, never undone.")]
pub(super) struct Args {
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let options = run::options(&args.site.layers()?.check()?, &run::Range::ONE)?;
    let store = &options.store;
    store.check_folder(store.root())?;
    let recovered = job::recover(&options)?;
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        let values: Vec<_> = recovered.iter().map(json_of).collect();
        serde_json::to_writer_pretty(&mut out, &values)?;
        writeln!(out)?;
    } else if recovered.is_empty() {
        writeln!(out, "nothing is half done")?;
    }
    let mut code = 0;
    for Recovered { key, result } in &recovered {
        match result {
            Ok(runs) if args.output == Output::Table => {
                let runs = match runs.is_empty() {
                    true => "another run, finished meanwhile".to_owned(),
                    false => runs.join(", "),
                };
                writeln!(out, "{key}: finished what {runs} had begun to publish")?;
            }
            Ok(_) => {}
            Err(error) => {
                code = exit::day_code(error);
                render::fail(&format!("{key}: {error}{}", exit::advice(error)));
            }
        }
    }
    Ok(code)
}

fn json_of(recovered: &Recovered) -> serde_json::Value {
    match &recovered.result {
        Ok(runs) => json!({ "partition": recovered.key, "runs": runs }),
        Err(error) => json!({ "partition": recovered.key, "error": error.to_string() }),
    }
}
