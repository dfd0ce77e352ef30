//! `klieg setup`: the tables of a warehouse in the metastore, or the statements that make them.

use std::io::Write as _;

use crate::catalog;
use crate::catalog::Metastore;
use crate::cli::exit;
use crate::cli::job_args::SiteArgs;
use crate::config::CatalogKind;
use crate::config::Config;
use crate::store::Store;
use crate::table::catalog::flow_tables;

/// Make database and tables in the metastore, or print the statements that make them
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg setup --config /etc/klieg/site.yaml                 with catalog.kind: metastore
  klieg setup --print -D warehouse=hdfs://namenode:8020/user/spot > setup.sql && beeline -u \"$JDBC_URL\" -f setup.sql

External Parquet tables with Spot's columns. What exists stays as it is: a table that is otherwise
is shown with each difference, and the exit code is 1. Partitions are added by the runs.")]
pub(super) struct Args {
    /// Print the statements, also with catalog.kind: metastore
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let config = args.site.layers()?.check()?;
    let store = Store::open(&config)?;
    if config.catalog.kind == CatalogKind::Metastore && !args.print {
        return make(&config, &store);
    }
    let tables = flow_tables(store.root());
    let statements = catalog::create(&config.catalog.database, &tables, |path| store.uri(path));
    let mut out = std::io::stdout().lock();
    for statement in statements {
        writeln!(out, "{statement};")?;
    }
    Ok(exit::DONE)
}

fn make(config: &Config, store: &Store) -> anyhow::Result<u8> {
    let metastore = Metastore::open(config)?;
    let tables = flow_tables(store.root());
    let mut out = std::io::stdout().lock();
    for made in metastore.create(&tables, &|path| store.uri(path))? {
        writeln!(out, "made {made}")?;
    }
    let mut code = exit::DONE;
    let compared = metastore.compare(&tables, &|path| store.uri(path))?;
    for (table, differences) in tables.iter().zip(compared) {
        let name = format!("{}.{}", config.catalog.database, table.name);
        let differences = differences.unwrap_or_else(|| vec!["is missing".to_owned()]);
        if differences.is_empty() {
            writeln!(out, "{name} is as it must be")?;
            continue;
        }
        code = exit::FAILED;
        writeln!(out, "{name} is another table; it stays as it is:")?;
        for difference in differences {
            writeln!(out, "  {difference}")?;
        }
    }
    Ok(code)
}
