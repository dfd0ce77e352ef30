//! `klieg setup`: the statements that make the tables of a warehouse.

use std::io::Write as _;

use crate::catalog;
use crate::cli::exit;
use crate::cli::job_args::SiteArgs;
use crate::store::Store;
use crate::table::catalog::flow_tables;

/// Print the statements that make database and tables in Hive, Impala or Spark
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg setup -D warehouse=hdfs://namenode:8020/user/spot > setup.sql && beeline -u \"$JDBC_URL\" -f setup.sql
  klieg setup -D warehouse=hdfs://namenode:8020/user/spot -D catalog.database=spot

External Parquet tables with Spot's columns; what exists stays as it is. Partitions are added
by the statements that runs write with `catalog.kind: script`.")]
pub(super) struct Args {
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let config = args.site.layers()?.check()?;
    let store = Store::open(&config)?;
    let tables = flow_tables(store.root());
    let statements = catalog::create(&config.catalog.database, &tables, |path| store.url(path));
    let mut out = std::io::stdout().lock();
    for statement in statements {
        writeln!(out, "{statement};")?;
    }
    Ok(exit::DONE)
}
