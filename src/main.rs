//! The `klieg` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    klieg::cli::main()
}
