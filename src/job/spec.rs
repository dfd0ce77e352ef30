//! Job files: `name`, `pipeline`, `steps`, and keys of the configuration.

use crate::config;
use crate::config::Config;
use crate::config::JobKeys;
use crate::config::Layers;
use crate::config::Origin;
use crate::job::Partition;
use crate::step;
use crate::table::period::Period;

/// What kind of records a job works on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pipeline {
    /// Flow records.
    Flow,
}

impl Pipeline {
    /// All.
    pub const ALL: [Self; 1] = [Self::Flow];

    /// Returns its name, which is a folder of the warehouse too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
        }
    }
}

/// A kind of step.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum StepKind {
    /// Raw files to the raw table.
    Ingest,
    /// The raw table to suspicious connections.
    Suspicious,
}

impl StepKind {
    /// All, in the order in which they can run.
    pub const ALL: [Self; 2] = [Self::Ingest, Self::Suspicious];

    /// True where an hour can be done alone.
    #[must_use]
    pub fn takes_hours(self) -> bool {
        self == Self::Ingest
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => step::ingest::NAME,
            Self::Suspicious => step::suspicious::NAME,
        }
    }
}

/// A checked job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// What it works on.
    pub pipeline: Pipeline,
    /// Steps in order.
    pub steps: Vec<StepKind>,
    /// Settings.
    pub config: Config,
}

/// A job that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A key or value.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A pipeline or step that does not exist.
    #[error("{origin}: unknown {what} `{name}`, must be one of: {known}")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// `pipeline` or `step`.
        what: &'static str,
        /// As written.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// An empty list of steps.
    #[error("{0}: `steps` is empty; name at least one of: ingest, suspicious")]
    NoSteps(Origin),
    /// Steps in an order in which they cannot run, or twice.
    #[error("{origin}: step `{name}` cannot stand here; the order is: {order}")]
    Order {
        /// Where it stands.
        origin: Origin,
        /// The step.
        name: String,
        /// The order.
        order: String,
    },
}

impl Job {
    /// Checks a job file over `layers`; `steps` of the command line take the place of the file's.
    ///
    /// # Errors
    /// The first key, value, pipeline or step that cannot be used.
    pub fn try_new(
        mut layers: Layers,
        (path, text): (&str, &str),
        flags: &[(String, String)],
        steps: Option<&[String]>,
    ) -> Result<Self, JobError> {
        let JobKeys {
            name,
            pipeline,
            steps: mut wanted,
            steps_origin,
        } = layers.add_job(path, text)?;
        for (key, value) in flags {
            layers.define(key, value)?;
        }
        if let Some(steps) = steps {
            wanted = steps
                .iter()
                .map(|step| (step.clone(), Origin::Flag))
                .collect();
        }
        Ok(Self {
            name,
            pipeline: find("pipeline", &pipeline, [Pipeline::Flow], Pipeline::name)?,
            steps: check_steps(&wanted, steps_origin)?,
            config: layers.check()?,
        })
    }
}

impl Job {
    /// Returns the partition of a day or an hour.
    #[must_use]
    pub fn partition(&self, period: Period) -> Partition {
        Partition {
            pipeline: self.pipeline,
            period,
        }
    }

    /// Returns the first step that works on days alone.
    #[must_use]
    pub fn step_of_days(&self) -> Option<StepKind> {
        let mut steps = self.steps.iter().copied();
        steps.find(|step| !step.takes_hours())
    }
}

fn find<T: Copy, const N: usize>(
    what: &'static str,
    (name, origin): &(String, Origin),
    known: [T; N],
    name_of: impl Fn(T) -> &'static str,
) -> Result<T, JobError> {
    let found = known.into_iter().find(|&item| name_of(item) == name);
    found.ok_or_else(|| JobError::Unknown {
        origin: origin.clone(),
        what,
        name: name.clone(),
        known: known.map(name_of).join(", "),
    })
}

fn check_steps(wanted: &[(String, Origin)], origin: Origin) -> Result<Vec<StepKind>, JobError> {
    if wanted.is_empty() {
        return Err(JobError::NoSteps(origin));
    }
    let mut steps: Vec<StepKind> = Vec::with_capacity(wanted.len());
    for entry in wanted {
        let step = find("step", entry, StepKind::ALL, StepKind::name)?;
        if steps.last().is_some_and(|last| *last >= step) {
            return Err(JobError::Order {
                origin: entry.1.clone(),
                name: entry.0.clone(),
                order: StepKind::ALL.map(StepKind::name).join(", "),
            });
        }
        steps.push(step);
    }
    Ok(steps)
}
