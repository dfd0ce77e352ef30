//! SQL for three engines.

use std::path::Path;

use crate::catalog::Change;
use crate::catalog::keys;
use crate::catalog::spec;
use crate::table::catalog::Table;

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
        let keys = keys(table).into_iter();
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

/// Returns the statements that tell an engine of a change.
#[must_use]
pub fn statements(engine: Engine, database: &str, change: &Change) -> Vec<String> {
    let table = &change.table;
    let name = format!("{database}.{}", table.name);
    let mut statements = Vec::new();
    for partition in &change.there {
        let values = spec(table, &partition.values, ", ");
        let location = literal(&partition.location);
        statements.push(format!(
            "ALTER TABLE {name} ADD IF NOT EXISTS PARTITION ({values}) LOCATION {location}"
        ));
        if engine == Engine::Impala {
            statements.push(format!("REFRESH {name} PARTITION ({values})"));
        }
    }
    for values in &change.gone {
        let values = spec(table, values, ", ");
        statements.push(format!(
            "ALTER TABLE {name} DROP IF EXISTS PARTITION ({values})"
        ));
    }
    if engine == Engine::Spark {
        statements.push(format!("REFRESH TABLE {name}"));
    }
    statements
}
