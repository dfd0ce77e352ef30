//! What to run and what happened: a job file is parsed and checked as a whole, then each day runs its steps in order.

mod run;
mod spec;

pub use run::DayError;
pub use run::DayOutcome;
pub use run::RunOptions;
pub use run::WORK_AREA;
pub use run::run_day;
pub use spec::Job;
pub use spec::JobError;
pub use spec::Pipeline;
pub use spec::StepKind;
