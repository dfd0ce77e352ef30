//! A pipeline and a day: what is locked, published and rolled back as one.

use std::fmt;
use std::str::FromStr;

use crate::job::Pipeline;
use crate::table::hive::Day;
use crate::table::hive::InvalidDay;

/// `flow/2016-07-08`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Partition {
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// Its day.
    pub day: Day,
}

/// A text that names no partition.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPartition {
    /// Not `pipeline/day`.
    #[error("`{0}` is no partition; write flow/2016-07-08")]
    Form(String),
    /// No such day.
    #[error(transparent)]
    Day(#[from] InvalidDay),
}

impl FromStr for Partition {
    type Err = InvalidPartition;

    /// Takes `flow/2016-07-08`, and the name of its lock, `flow-20160708`.
    fn from_str(text: &str) -> Result<Self, InvalidPartition> {
        let parts = text.split_once(['/', '-']);
        let (name, day) = parts.ok_or_else(|| InvalidPartition::Form(text.to_owned()))?;
        let mut known = Pipeline::ALL.into_iter();
        let pipeline = known.find(|pipeline| pipeline.name() == name);
        Ok(Self {
            pipeline: pipeline.ok_or_else(|| InvalidPartition::Form(text.to_owned()))?,
            day: day.parse()?,
        })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pipeline.name(), self.day)
    }
}

impl Partition {
    /// Returns the name of its lock, its journal and its staging folder.
    #[must_use]
    pub fn key(self) -> String {
        format!("{}-{}", self.pipeline.name(), self.day.compact())
    }
}
