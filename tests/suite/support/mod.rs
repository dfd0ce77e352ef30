//! Paths, the binary, and the oracle.

pub(crate) mod lab;
pub(crate) mod proxy;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

/// Returns a file of the shared data set, or says loudly that the test is skipped.
pub(crate) fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if path.is_file() {
        return Some(path);
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    warn(&format!(
        "skipped {test}: ../shared/data/{name} not present"
    ));
    None
}

/// Writes past the test harness's capture, so that a skipped test is seen.
pub(crate) fn warn(text: &str) {
    use std::io::Write as _;
    let mut stderr = std::io::stderr();
    stderr
        .write_all(
            format!(
                "{text}
"
            )
            .as_bytes(),
        )
        .unwrap();
}

/// Runs klieg.
pub(crate) fn klieg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klieg"))
        .args(args)
        .output()
        .unwrap()
}

/// Copies the binary and appends to it. Another process does: tests beside this one start processes, which hold its open files until
/// they are programs themselves, and a file that somebody writes to cannot be run.
#[track_caller]
pub(crate) fn copy_klieg(to: &Path, more: &str) {
    let script = "cp \"$0\" \"$1\" && printf %s \"$2\" >>\"$1\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_klieg")]);
    assert!(shell.arg(to).arg(more).status().unwrap().success());
}

/// Returns stdout of a klieg run that must succeed.
pub(crate) fn klieg_stdout(args: &[&str]) -> String {
    let output = klieg(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the record lines of `nfdump -o csv`, without header, messages and summary.
pub(crate) fn nfdump_csv(file: &Path) -> Vec<String> {
    let output = Command::new("nfdump")
        .env("TZ", "UTC")
        .args(["-q", "-o", "csv", "-r"])
        .arg(file)
        .output()
        .expect("nfdump is installed by scripts/test");
    let text = String::from_utf8(output.stdout).unwrap();
    let records = text
        .lines()
        .filter(|line| line.split(',').count() == 48 && !line.starts_with("ts,"));
    records.map(str::to_owned).collect()
}

/// A generator of test input: splitmix64 (Steele, Lea, Flood 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// Runs a script of Python with the packages that `scripts/test` installs; returns stdout.
#[track_caller]
pub(crate) fn python(script: &str, args: &[&str]) -> String {
    let output = Command::new("python3")
        .env(
            "PYTHONPATH",
            concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-python"),
        )
        .args(["-c", script])
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}
