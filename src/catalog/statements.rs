//! SQL for three engines.

use std::collections::BTreeSet;
use std::path::Path;

use crate::table::catalog::DAY_KEYS;
use crate::table::catalog::HOUR_KEY;
use crate::table::catalog::Table;
use crate::table::hive::Day;
use crate::table::hive::hour_dir;

/// Who runs the statements.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    /// Hive, through beeline.
    Hive,
    /// Impala.
    Impala,
    /// Spark SQL.
    Spark,
}

impl Engine {
    /// All.
    pub const ALL: [Self; 3] = [Self::Hive, Self::Impala, Self::Spark];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hive => "hive",
            Self::Impala => "impala",
            Self::Spark => "spark",
        }
    }
}

/// Returns a text as a literal; nothing in it ends the literal.
fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{escaped}'")
}

/// Returns the statements that make a database and its tables where they are missing; `url` says where a folder lies. All
/// engines take them.
#[must_use]
pub fn create(database: &str, tables: &[Table], url: impl Fn(&Path) -> String) -> Vec<String> {
    let mut statements = vec![format!("CREATE DATABASE IF NOT EXISTS {database}")];
    for table in tables {
        let columns = table.columns.iter();
        let columns: Vec<_> = columns
            .map(|(name, kind)| format!("  `{name}` {}", kind.name()))
            .collect();
        let hour = table.is_hourly.then_some(HOUR_KEY);
        let keys = DAY_KEYS.into_iter().chain(hour);
        let keys: Vec<_> = keys.map(|(name, kind)| format!("{name} {kind}")).collect();
        statements.push(format!(
            "CREATE EXTERNAL TABLE IF NOT EXISTS {database}.{} (\n{}\n)\nPARTITIONED BY ({})\nSTORED AS PARQUET\nLOCATION {}",
            table.name,
            columns.join(",\n"),
            keys.join(", "),
            literal(&url(&table.folder)),
        ));
    }
    statements
}

/// A published day.
pub struct Published<'a> {
    /// Which.
    pub day: Day,
    /// Hours of the raw table that have rows.
    pub hours: &'a BTreeSet<u8>,
    /// Says where a folder lies.
    pub url: &'a dyn Fn(&Path) -> String,
}

/// Returns the statements that tell an engine of a published day of a table: of its hours, or of the day as one where the table
/// has no hours.
#[must_use]
pub fn partition(
    engine: Engine,
    database: &str,
    table: &Table,
    published: &Published<'_>,
) -> Vec<String> {
    let Published { day, hours, url } = published;
    let name = format!("{database}.{}", table.name);
    let folder = table.folder.join(day.hive_path());
    let [y, m, d] = day.numbers();
    let of_day = format!("y={y}, m={m}, d={d}");
    let mut statements = Vec::new();
    let mut add = |values: &str, folder: &Path| {
        let location = literal(&url(folder));
        statements.push(format!(
            "ALTER TABLE {name} ADD IF NOT EXISTS PARTITION ({values}) LOCATION {location}"
        ));
        if engine == Engine::Impala {
            statements.push(format!("REFRESH {name} PARTITION ({values})"));
        }
    };
    if table.is_hourly {
        for hour in *hours {
            let folder = folder.join(hour_dir(*hour));
            add(&format!("{of_day}, h={hour}"), &folder);
        }
        for hour in (0..24).filter(|hour| !hours.contains(hour)) {
            statements.push(format!(
                "ALTER TABLE {name} DROP IF EXISTS PARTITION ({of_day}, h={hour})"
            ));
        }
    } else {
        add(&of_day, &folder);
    }
    if engine == Engine::Spark {
        statements.push(format!("REFRESH TABLE {name}"));
    }
    statements
}
