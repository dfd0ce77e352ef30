//! A real Hadoop cluster on loopback, of `scripts/lab/lab.sh`.

use std::cell::OnceCell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Lines;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde_json::Value;

use crate::support::warn;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab/lab.sh");

/// Three clusters at a time: they wait more than they compute, and take 2 GB each.
static FREE: Mutex<u32> = Mutex::new(3);
static FREED: Condvar = Condvar::new();
/// One starts at a time: it looks for free ports, and opens them bit by bit.
static STARTING: Mutex<()> = Mutex::new(());

/// The right to run a cluster.
struct Turn;

impl Turn {
    fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = FREED.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}

/// A running cluster; ended when it is dropped, and also when this process dies.
pub(crate) struct Lab {
    pub(crate) environment: BTreeMap<String, String>,
    spark: OnceCell<RefCell<Spark>>,
    _turn: Turn,
}

/// A Spark that answers until the cluster is ended.
struct Spark {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    errors: PathBuf,
}

impl Spark {
    fn start(environment: &BTreeMap<String, String>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab/spark-read.sh");
        let errors = Path::new(&environment["LAB"]).join("log/spark.log");
        let mut child = Command::new(script)
            .arg(&environment["HMS_URI"])
            .envs(environment)
            .env("HADOOP_USER_NAME", "spot")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Self {
            questions: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            errors,
        }
    }

    fn ask(&mut self, statements: &[String]) -> Vec<Value> {
        let question = serde_json::to_string(statements).unwrap();
        let asked = writeln!(self.questions, "{question}");
        let mut rows = Vec::new();
        for line in self.answers.by_ref().map(Result::unwrap) {
            match line.as_str() {
                "done" => return rows,
                row => rows.push(serde_json::from_str(row).unwrap()),
            }
        }
        let errors = std::fs::read_to_string(&self.errors).unwrap();
        panic!("Spark ended, {asked:?}: {question}: {errors}");
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Lab {
    /// Starts a cluster of two DataNodes; `None`, said loudly, where `NO_LAB` is set.
    pub(crate) fn up(args: &[&str]) -> Option<Self> {
        Self::up_with(args, &[])
    }

    /// The same with variables of `lab.sh`.
    pub(crate) fn up_with(args: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        if std::env::var_os("NO_LAB").is_some() {
            let thread = std::thread::current();
            warn(&format!(
                "skipped {}: NO_LAB is set",
                thread.name().unwrap_or_default()
            ));
            return None;
        }
        let turn = Turn::take();
        let mut command = Command::new(SCRIPT);
        command.arg("up").args(args).env("DNS", "2");
        command.envs(variables.iter().copied());
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let output = command.output().unwrap();
        drop(starting);
        assert!(
            output.status.success(),
            "run scripts/lab/lab.sh prepare first: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        let environment: BTreeMap<String, String> = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let lab = Self {
            environment,
            spark: OnceCell::new(),
            _turn: turn,
        };
        lab.end_with_this_process();
        Some(lab)
    }

    /// A shell of its own session takes the cluster down when this process is gone.
    fn end_with_this_process(&self) {
        let pid = std::process::id();
        let lab = &self.environment["LAB"];
        let script = format!(
            "while kill -0 {pid} 2>/dev/null && [ -e {lab}/state ]; do sleep 1; done; [ ! -e {lab}/state ] || LAB={lab} {SCRIPT} down"
        );
        let mut shell = Command::new("setsid");
        shell.args(["sh", "-c", &script]).process_group(0);
        let nothing = || Stdio::null();
        shell.stdin(nothing()).stdout(nothing()).stderr(nothing());
        drop(shell.spawn().unwrap());
    }

    /// Returns a command of `lab.sh`.
    pub(crate) fn script(&self, args: &[&str]) -> Command {
        let mut command = Command::new(SCRIPT);
        command.args(args).envs(&self.environment);
        command
    }

    /// Runs a command of `lab.sh`.
    #[track_caller]
    pub(crate) fn sh(&self, args: &[&str]) -> String {
        let output = self.script(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "lab.sh {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs statements in Spark SQL, in a new session; the rows of those that have some.
    #[track_caller]
    pub(crate) fn spark(&self, statements: &[String]) -> Vec<Value> {
        let rows = self.spark_or_error(statements);
        for row in &rows {
            assert!(row.get("error").is_none(), "{row}");
        }
        rows
    }

    /// Asks in the session of the last question, which remembers what it has read; a row `error` for a statement that fails.
    pub(crate) fn spark_again(&self, statements: &[&str]) -> Vec<Value> {
        let again = ["-- in the session of the line before"];
        let statements = again.iter().chain(statements);
        let statements: Vec<String> = statements.map(ToString::to_string).collect();
        self.spark_or_error(&statements)
    }

    /// As [`Self::spark`]; a row `error` for a statement that fails.
    pub(crate) fn spark_or_error(&self, statements: &[String]) -> Vec<Value> {
        let start = || RefCell::new(Spark::start(&self.environment));
        let spark = self.spark.get_or_init(start);
        spark.borrow_mut().ask(statements)
    }

    /// Returns klieg as the user spot of this cluster runs it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klieg"));
        command.envs(&self.environment);
        if !self.environment.contains_key("KEYTAB") {
            command.env("HADOOP_USER_NAME", "spot");
        }
        command
    }

    /// `-D warehouse=` of a folder of spot.
    pub(crate) fn warehouse(&self, name: &str) -> String {
        format!(
            "warehouse={}/user/spot/{name}",
            self.environment["HDFS_URL"]
        )
    }

    /// Runs `klieg run` on a warehouse.
    pub(crate) fn run(&self, name: &str, args: &[&str]) -> Output {
        run_in(&mut self.command(), &self.warehouse(name), args)
    }

    /// Copies a folder of this machine to the landing folder of a warehouse.
    pub(crate) fn land(&self, name: &str, from: &Path) {
        let landing = format!("/user/spot/{name}/flow/landing");
        let from = format!("{}/.", from.display());
        let put = ["-put", "-f", "-t", "8", &from, &landing];
        self.sh(&[&["fs-as-spot", "-mkdir", "-p", &landing, "--"], &put[..]].concat());
    }

    /// Renames a file of spot, where it is there.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        let http = &self.environment["NN_HTTP"];
        let url = format!("{http}/webhdfs/v1{from}?op=RENAME&destination={to}&user.name=spot");
        let output = Command::new("curl")
            .args(["-s", "--noproxy", "*", "-X", "PUT", &url])
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.contains("boolean"), "{answer}");
    }

    /// Files below a folder with their lengths, as the NameNode lists them over HTTP; names with a leading dot are left out.
    pub(crate) fn files(&self, folder: &str) -> BTreeMap<String, u64> {
        let mut files = BTreeMap::new();
        self.collect(folder, &mut files);
        files
    }

    fn collect(&self, folder: &str, files: &mut BTreeMap<String, u64>) {
        let http = &self.environment["NN_HTTP"];
        let url = format!("{http}/webhdfs/v1{folder}?op=LISTSTATUS&user.name=hdfs");
        let output = Command::new("curl")
            .args(["-s", "--noproxy", "*", &url])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let statuses = answer["FileStatuses"]["FileStatus"].as_array();
        for status in statuses.into_iter().flatten() {
            let name = status["pathSuffix"].as_str().unwrap();
            let path = format!("{folder}/{name}");
            if name.starts_with('.') {
                continue;
            }
            if status["type"] == "DIRECTORY" {
                self.collect(&path, files);
            } else {
                files.insert(path, status["length"].as_u64().unwrap());
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = Command::new(SCRIPT)
            .arg("down")
            .envs(&self.environment)
            .output();
        drop(down);
    }
}

/// Adds the job, a warehouse and settings that make a test quick, and runs.
pub(crate) fn run_in(command: &mut Command, warehouse: &str, args: &[&str]) -> Output {
    add_run(command, warehouse, args).output().unwrap()
}

/// Adds the arguments of such a run.
pub(crate) fn add_run<'a>(
    command: &'a mut Command,
    warehouse: &str,
    args: &[&str],
) -> &'a mut Command {
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    command
        .args(["run", job, "-D", warehouse])
        .args(["-D", "ingest.settle=0s", "-D", "suspicious.model=none"])
        .args(args)
}
