//! The command line: parses it, runs a command, prints, and chooses the exit code. The only user of clap and anyhow, and the
//! only printer.

mod check;
mod demo;
mod doctor;
mod emit;
mod emit_worker;
mod eval;
mod eval_counts;
mod exit;
mod gc;
mod groups;
mod history;
mod inspect;
mod job_args;
mod lineage;
mod metrics;
mod nfdump_csv;
mod outcome;
mod plan;
mod recover;
mod render;
mod rollback;
mod run;
mod setup;
mod status;
mod synth;
mod top;
mod unlock;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

/// Finds the few connections that matter in billions of network events.
#[derive(Debug, Parser)]
#[command(name = "klieg", version, arg_required_else_help = true, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Worker(worker::Args),
    Plan(plan::Args),
    Check(check::Args),
    Top(top::Args),
    Status(status::Args),
    History(history::HistoryArgs),
    Show(history::ShowArgs),
    Setup(setup::Args),
    Doctor(doctor::Args),
    Emit(emit::Args),
    Recover(recover::Args),
    Rollback(rollback::Args),
    Gc(gc::Args),
    Unlock(unlock::Args),
    Inspect(inspect::Args),
    Synth(synth::Args),
    Eval(eval::Args),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(std::env::args_os().map(long_option)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Check(args) => check::run(args),
        Command::Top(args) => top::run(args),
        Command::Status(args) => status::run(args),
        Command::History(args) => history::history(args),
        Command::Show(args) => history::show(args),
        Command::Setup(args) => setup::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Emit(args) => emit::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Rollback(args) => rollback::run(args),
        Command::Gc(args) => gc::run(args),
        Command::Unlock(args) => unlock::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Inspect(args) => inspect::run(args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if exit::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = exit::warehouse_advice(&error);
            let message = exit::message(&error);
            render::fail(&format!("{message}{advice}"));
            ExitCode::from(exit::code(&error))
        }
    }
}

/// Hadoop writes these long options with one dash.
fn long_option(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-conf") => "--conf".into(),
        Some("-fs") => "--fs".into(),
        _ => argument,
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    if error.use_stderr() {
        ExitCode::from(exit::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}
