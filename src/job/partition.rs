//! A pipeline and a day or an hour: what is published and rolled back as one.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::job::Pipeline;
use crate::table::hive::Layout;
use crate::table::period::InvalidPeriod;
use crate::table::period::Period;

/// `flow/2016-07-08` or `flow/2016-07-08T07`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Partition {
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// Its day or hour.
    pub period: Period,
}

/// A text that names no partition.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPartition {
    /// Not `pipeline/period`.
    #[error("`{0}` is no partition; write flow/2016-07-08, or flow/2016-07-08T07 for an hour")]
    Form(String),
    /// No such day or hour.
    #[error(transparent)]
    Period(#[from] InvalidPeriod),
}

impl FromStr for Partition {
    type Err = InvalidPartition;

    /// Takes `flow/2016-07-08`, `flow/2016-07-08T07`, and the name of its lock, `flow-20160708`.
    fn from_str(text: &str) -> Result<Self, InvalidPartition> {
        let parts = text.split_once(['/', '-']);
        let (name, period) = parts.ok_or_else(|| InvalidPartition::Form(text.to_owned()))?;
        let mut known = Pipeline::ALL.into_iter();
        let pipeline = known.find(|pipeline| pipeline.name() == name);
        Ok(Self {
            pipeline: pipeline.ok_or_else(|| InvalidPartition::Form(text.to_owned()))?,
            period: period.parse()?,
        })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pipeline.name(), self.period)
    }
}

impl Partition {
    /// Returns the name of its lock, its journal and its staging folder: those of its day, so that a day and its hours exclude each
    /// other.
    #[must_use]
    pub fn key(self) -> String {
        Layout::new(Path::new("/"), self.pipeline.name()).key(self.period.day)
    }
}
