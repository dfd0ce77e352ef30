//! `klieg unlock`: takes a lock from its owner.

use serde_json::json;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::job::Partition;
use crate::store;
use crate::store::Store;

/// Take the lock of a partition from its owner
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg status -D warehouse=hdfs://namenode:8020/user/spot
  klieg unlock flow/2016-07-08 --force -D warehouse=hdfs://namenode:8020/user/spot

The lock of a run that was killed is free by itself: at once for a run on the same machine,
after a minute for others. This is for a run that lives and does not end; it cannot publish
any more once its lock is taken. On file:// a lock ends with its process: stop that.")]
pub(super) struct Args {
    /// Such as flow/2016-07-08
    partition: Partition,
    /// Needed: a live run loses its work
    #[arg(long)]
    force: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let store = Store::open(&args.site.layers()?.check()?)?;
    store.check_folder(store.root())?;
    let key = args.partition.key();
    let held = store::held_locks(&store)?;
    let mut out = std::io::stdout().lock();
    let Some((_, owner)) = held.into_iter().find(|(held, _)| *held == key) else {
        tell(&mut out, args, None)?;
        return Ok(exit::DONE);
    };
    if !args.force {
        let text = format!("{} is held by {owner}; --force takes it", args.partition);
        return Err(exit::UsageText(text).into());
    }
    if store::break_lock(&store, &key)? {
        tell(&mut out, args, Some(&owner))?;
        return Ok(exit::DONE);
    }
    let text = format!(
        "{} is held by {owner}; on file:// a lock ends with its process: stop that",
        args.partition
    );
    Err(exit::UsageText(text).into())
}

/// Says from whom the lock was taken; `None` where nobody held it.
fn tell(out: &mut impl std::io::Write, args: &Args, owner: Option<&str>) -> std::io::Result<()> {
    let partition = args.partition.to_string();
    match (args.output, owner) {
        (Output::Json, owner) => {
            let value = json!({ "partition": partition, "taken_from": owner });
            serde_json::to_writer_pretty(&mut *out, &value)?;
            writeln!(out)
        }
        (Output::Table, None) => writeln!(out, "{partition}: nobody holds it"),
        (Output::Table, Some(owner)) => writeln!(out, "{partition}: taken from {owner}"),
    }
}
