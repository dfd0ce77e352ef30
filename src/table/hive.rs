//! Hive paths and the hours behind them. Values are written unpadded (`m=7`), as Hive normalises integers.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use chrono::DateTime;
use chrono::Datelike as _;
use chrono::Days;
use chrono::NaiveDate;

use crate::table::period::Period;

/// Milliseconds of an hour.
pub const HOUR_MS: u64 = 3_600_000;
/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// A day.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Day(NaiveDate);

/// A text that is no date.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidDay {
    /// Not written as one.
    #[error("`{0}` is not written as a date; write 2016-07-08 or 20160708")]
    Form(String),
    /// No such day.
    #[error("`{0}` is not a date that exists since 1970")]
    Missing(String),
}

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let digits: String = match text.as_bytes() {
            [_, _, _, _, b'-', _, _, b'-', _, _] => text.replace('-', ""),
            _ => text.to_owned(),
        };
        let is_plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain {
            return Err(InvalidDay::Form(text.to_owned()));
        }
        let date = NaiveDate::parse_from_str(&digits, "%Y%m%d").ok();
        let date = date.filter(|date| date.year() >= 1970);
        date.map(Self)
            .ok_or_else(|| InvalidDay::Missing(text.to_owned()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

impl Day {
    /// Returns the day of a time in milliseconds since 1970 UTC; `None` beyond what a calendar has.
    #[must_use]
    pub fn of_ms(time_ms: u64) -> Option<Self> {
        let time_ms = i64::try_from(time_ms).ok()?;
        DateTime::from_timestamp_millis(time_ms).map(|time| Self(time.date_naive()))
    }

    /// Returns its first millisecond since 1970, by universal time.
    #[must_use]
    pub fn start_ms(self) -> u64 {
        let days = self
            .0
            .signed_duration_since(NaiveDate::default())
            .num_days();
        u64::try_from(days).unwrap_or(0) * DAY_MS
    }

    pub(super) fn date(self) -> NaiveDate {
        self.0
    }

    /// Returns the day after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add_days(Days::new(1))
                .unwrap_or(NaiveDate::MAX),
        )
    }

    /// Returns year, month, day.
    #[must_use]
    pub fn numbers(self) -> [u32; 3] {
        let year = u32::try_from(self.0.year()).unwrap_or(0);
        [year, self.0.month(), self.0.day()]
    }

    /// Returns `y=2016/m=7/d=8`.
    #[must_use]
    pub fn hive_path(self) -> PathBuf {
        let (y, m, d) = (self.0.year(), self.0.month(), self.0.day());
        PathBuf::from(format!("y={y}/m={m}/d={d}"))
    }

    /// Returns the day of the folders `y=2016`, `m=7`, `d=8`; padded values are read too.
    #[must_use]
    pub fn of_hive_dirs(y: &str, m: &str, d: &str) -> Option<Self> {
        let year = y.strip_prefix("y=")?.parse().ok()?;
        let month = m.strip_prefix("m=")?.parse().ok()?;
        let day = d.strip_prefix("d=")?.parse().ok()?;
        NaiveDate::from_ymd_opt(year, month, day).map(Self)
    }

    /// Returns `20160708`.
    #[must_use]
    pub fn compact(self) -> String {
        self.0.format("%Y%m%d").to_string()
    }
}

/// Returns `h=7`.
#[must_use]
pub fn hour_dir(hour: u8) -> String {
    format!("h={hour}")
}

/// Where the tables of a pipeline lie below the root of the warehouse.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    pipeline: String,
}

impl Layout {
    /// Takes the root and the pipeline's name.
    #[must_use]
    pub fn new(root: &Path, pipeline: &str) -> Self {
        Self {
            root: root.to_path_buf(),
            pipeline: pipeline.to_owned(),
        }
    }

    /// Everything of the pipeline.
    #[must_use]
    pub fn pipeline_dir(&self) -> PathBuf {
        self.root.join(&self.pipeline)
    }

    /// Raw files.
    #[must_use]
    pub fn landing(&self) -> PathBuf {
        self.pipeline_dir().join("landing")
    }

    /// The raw table.
    #[must_use]
    pub fn table(&self) -> PathBuf {
        self.pipeline_dir().join("hive")
    }

    /// The day of the raw table, with `h=` folders, or one of these.
    #[must_use]
    pub fn raw(&self, period: impl Into<Period>) -> PathBuf {
        self.table().join(period.into().hive_path())
    }

    /// The day of a result table (`suspicious`, `groups`).
    #[must_use]
    pub fn result(&self, table: &str, day: Day) -> PathBuf {
        self.pipeline_dir()
            .join("hive/oa")
            .join(table)
            .join(day.hive_path())
    }

    /// Names a day of the pipeline in the work area: its lock, its journal, its staging folder, its versions.
    #[must_use]
    pub fn key(&self, day: Day) -> String {
        format!("{}-{}", self.pipeline, day.compact())
    }

    /// The folder of Spot's text results.
    #[must_use]
    pub fn scores(&self, day: Day) -> PathBuf {
        let day = day.compact();
        self.pipeline_dir()
            .join("scored_results")
            .join(day)
            .join("scores")
    }

    /// The folder of the day's models.
    #[must_use]
    pub fn model(&self, day: Day) -> PathBuf {
        self.pipeline_dir().join("model").join(day.compact())
    }
}
