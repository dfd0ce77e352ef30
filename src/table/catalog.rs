//! The tables that klieg fills, as a catalog knows them.

use std::path::Path;
use std::path::PathBuf;

use crate::table::flow;
use crate::table::hive::Layout;
use crate::table::parquet::HiveType;
use crate::table::suspicious::GROUP_COLUMNS;
use crate::table::suspicious::SCORE_COLUMNS;

/// Columns of partitions and their types, as Spot has them for flow.
pub const DAY_KEYS: [(&str, &str); 3] = [("y", "SMALLINT"), ("m", "TINYINT"), ("d", "TINYINT")];
/// The column of partitions of an hour.
pub const HOUR_KEY: (&str, &str) = ("h", "TINYINT");

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, without those of partitions.
    pub columns: &'static [(&'static str, HiveType)],
    /// True for partitions of an hour, false for those of a day.
    pub is_hourly: bool,
    /// Its folder.
    pub folder: PathBuf,
}

/// Returns the tables of the flow pipeline in a warehouse.
#[must_use]
pub fn flow_tables(root: &Path) -> [Table; 3] {
    let layout = Layout::new(root, "flow");
    let result = |name, columns, folder| Table {
        name,
        columns,
        is_hourly: false,
        folder: layout.table().join("oa").join(folder),
    };
    [
        Table {
            name: "flow",
            columns: &flow::COLUMNS,
            is_hourly: true,
            folder: layout.table(),
        },
        result("flow_scores", &SCORE_COLUMNS, "suspicious"),
        result("flow_groups", &GROUP_COLUMNS, "groups"),
    ]
}
