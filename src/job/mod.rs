//! What to run and what happened: a job file is parsed and checked as a whole, then each day runs its steps in order.

mod announce;
mod history;
mod overview;
mod partition;
mod plan;
mod repair;
mod run;
mod spec;

pub use history::History;
pub use history::Record;
pub use history::Status;
pub use overview::Overview;
pub use overview::PipelineOverview;
pub use partition::InvalidPartition;
pub use partition::Partition;
pub use plan::Action;
pub use plan::DayPlan;
pub use plan::Reprocess;
pub use plan::is_selected;
pub use plan::plan_days;
pub use plan::targets;
pub use repair::Recovered;
pub use repair::RolledBack;
pub use repair::recover;
pub use repair::roll_partition_back;
pub use run::DayError;
pub use run::DayOutcome;
pub use run::DayResult;
pub use run::RunError;
pub use run::RunOptions;
pub use run::open_store;
pub use run::run_days;
pub use spec::Job;
pub use spec::JobError;
pub use spec::Pipeline;
pub use spec::StepKind;
