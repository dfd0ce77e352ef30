//! Runs on worker processes: the bytes of a run in one process, whatever dies on the way; what is wrong is said.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::run::Warehouse;
use crate::strangers::Shown;
use crate::strangers::assert_closed;
use crate::strangers::assert_closed_to_all;
use crate::strangers::call_all;
use crate::strangers::forged_authority;
use crate::strangers::listening;
use crate::support::copy_klieg;
use crate::support::klieg_stdout;
use crate::support::lab::Lab;
use crate::support::proxy::Proxy;

const DAY: &str = "2016-07-08";
const JOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
/// Many splits, few models with few passes, and silence that is soon noticed.
const SETTINGS: [&str; 9] = [
    "ingest.settle=0s",
    "ingest.split_bytes=256KiB",
    "suspicious.models=1",
    "suspicious.token_models=1",
    "suspicious.online_epochs=1",
    "suspicious.iterations=5",
    "threads=2",
    "memory=1GiB",
    "cluster.worker_timeout=7s",
];
/// What the stages of a day do, in order.
pub(crate) const STAGES: [&str; 4] = [
    "decode and write",
    "make words, count",
    "count",
    "look flows up",
];

/// What workers do for models that they train.
const OF_MODELS: [&str; 2] = ["fold documents in", "score pairs"];

/// A warehouse with a day, a damaged raw file in it, and what a run in one process makes of it.
pub(crate) struct Site {
    pub(crate) warehouse: Warehouse,
    wanted: BTreeMap<String, Vec<u8>>,
    /// Counts of each raw file, and why records and files were rejected.
    counts: Value,
}

pub(crate) fn text(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

impl Site {
    pub(crate) fn new() -> Self {
        let warehouse = Warehouse::with_days(&[DAY], 6_000);
        let junk = warehouse.path("flow/landing").join("nfcapd.201607081201");
        fs::write(junk, [0x55; 3000]).unwrap();
        let mut site = Self {
            warehouse,
            wanted: BTreeMap::new(),
            counts: Value::Null,
        };
        let (code, told) = text(&site.run(&[]).output().unwrap());
        assert_eq!(code, Some(0), "{told}");
        site.wanted = site.warehouse.published();
        site.counts = site.counted();
        assert_ne!(site.counts["rejects"], serde_json::json!([]));
        site.clear();
        site
    }

    fn counted(&self) -> Value {
        let manifest = self.path("flow/hive/y=2016/m=7/d=8/_manifest.json");
        let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        manifest["report"].clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.warehouse.path(name)
    }

    pub(crate) fn clear(&self) {
        for folder in ["flow/hive", "flow/scored_results", "flow/model"] {
            fs::remove_dir_all(self.path(folder)).unwrap();
        }
    }

    pub(crate) fn klieg(&self, args: &[&str], work: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klieg"));
        command.args(args);
        let (root, work) = (self.path(""), self.path(work));
        command.args(["-D", &format!("warehouse={}", root.display())]);
        command.args(["-D", &format!("work_dir={}", work.display())]);
        for setting in SETTINGS {
            command.args(["-D", setting]);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Command {
        self.klieg(&[&["run", JOB, "--date", DAY], args].concat(), "work")
    }

    /// A run that publishes the bytes of a run in one process, and leaves nothing behind; returns what it told.
    #[track_caller]
    pub(crate) fn run_same(&self, command: &mut Command) -> String {
        let (code, told) = text(&command.output().unwrap());
        assert_eq!(code, Some(0), "{told}");
        self.check(&told);
        told
    }

    /// Nobody finds a driver that has ended.
    #[track_caller]
    fn check_pool_is_free(&self) {
        assert!(!is_there(&self.path(".klieg/pools/p.json")));
        let status = text(&self.klieg(&["status"], "work").output().unwrap()).1;
        assert!(!status.contains("pool  "), "{status}");
    }

    #[track_caller]
    pub(crate) fn check(&self, told: &str) {
        self.check_published(told);
        let runs = fs::read_dir(self.path(".klieg/runs/flow-20160708"));
        let left: Vec<_> = runs.into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The same, where a late task may have left something in its run's folder.
    #[track_caller]
    fn check_published(&self, told: &str) {
        let found = self.warehouse.published();
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.wanted), "{told}");
        for (name, bytes) in &self.wanted {
            assert!(found[name] == *bytes, "{name} differs: {told}");
        }
        assert_eq!(self.counted(), self.counts, "{told}");
        self.clear();
    }

    pub(crate) fn worker(&self, name: &str, args: &[&str], environment: &[(&str, &str)]) -> Worker {
        self.worker_of(name, &[&["--pool", "p"], args].concat(), environment)
    }

    pub(crate) fn worker_of(
        &self,
        name: &str,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Worker {
        let itself = |command: &Command| {
            let mut same = Command::new(command.get_program());
            same.args(command.get_args());
            same
        };
        self.worker_by(name, args, environment, itself)
    }

    /// A worker whose program is another build.
    pub(crate) fn worker_of_another_build(&self, args: &[&str]) -> Worker {
        let program = self.path("other build");
        copy_klieg(&program, "x");
        self.worker_by("other", args, &[], |command| {
            let mut other = Command::new(&program);
            other.args(command.get_args());
            other
        })
    }

    /// A worker whose command `how` changes.
    pub(crate) fn worker_by(
        &self,
        name: &str,
        args: &[&str],
        environment: &[(&str, &str)],
        how: impl Fn(&Command) -> Command,
    ) -> Worker {
        let log = self.path(&format!("{name}.log"));
        let args = [&["worker", "--slots", "1"], args].concat();
        let mut command = how(&self.klieg(&args, name));
        Worker::start(command.envs(environment.iter().copied()), log)
    }
}

/// A process `klieg worker`; ended when it is dropped.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// Starts one that writes into a log.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    pub(crate) fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_told(&self, text: &str) {
        wait_for(text, || self.told().contains(text));
    }

    /// The process that serves a driver.
    pub(crate) fn serving(&self) -> String {
        let told = self.told();
        let line = told
            .lines()
            .rfind(|line| line.contains(": serving the driver"));
        let words = line.unwrap().split_whitespace();
        let number = words.skip_while(|word| *word != "worker").nth(1);
        number.unwrap().trim_end_matches(':').to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(90), "no {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_stopped(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
}

fn signal(kind: &str, process: &str) {
    let done = Command::new("kill").args([kind, process]).status();
    assert!(done.unwrap().success());
}

pub(crate) fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap()
}

/// Processes that a process has started.
fn children(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    // A thread may end meanwhile.
    let told = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let told: Vec<_> = told.collect();
    let words = told.iter().flat_map(|told| told.split_whitespace());
    words.map(ToOwned::to_owned).collect()
}

fn is_alive(process: &str) -> bool {
    is_there(&Path::new("/proc").join(process))
}

#[test]
fn a_worker_that_dies_in_any_stage_changes_nothing() {
    let site = Site::new();
    let told = site.run_same(&mut site.run(&["--cluster", "local:2"]));
    assert!(told.contains("2 workers, 2 slots"), "{told}");
    assert!(!told.contains("begun again"), "{told}");
    for stage in STAGES {
        for when in ["before", "after"] {
            let point = format!("{when} a task: {stage}");
            let once = site.path("once");
            drop(fs::remove_file(&once));
            let mut run = site.run(&["--cluster", "local:2"]);
            run.env("KLIEG_KILL_AT", &point).env("KLIEG_ONCE", &once);
            let told = site.run_same(&mut run);
            assert!(is_there(&once), "nobody came to {point}: {told}");
            assert!(told.contains("begun again"), "{point}: {told}");
        }
    }
    reruns_are_in_the_report(&site);
    jobs_end_at_last(&site);
}

/// A worker that dies again and again, and a task that does not end.
fn jobs_end_at_last(site: &Site) {
    let mut run = site.run(&["--cluster", "local:2", "--max-reruns", "1"]);
    run.env("KLIEG_KILL_AT", "before a task: count");
    let (code, told) = text(&run.output().unwrap());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("given up after 2 tries"), "{told}");
    let mut history = site.klieg(&["history", "--output", "json"], "work");
    let records: Value = serde_json::from_slice(&history.output().unwrap().stdout).unwrap();
    let work = &records[0]["outcome"]["work"][0];
    assert_eq!(work["plan"], "documents", "{records}");
    assert_eq!(work["reruns"].as_array().unwrap().len(), 1, "{work}");
    let left = site.warehouse.published().into_keys();
    let left: Vec<_> = left.filter(|name| !name.starts_with("flow/hive")).collect();
    assert!(left.is_empty(), "{left:?}");
    site.check_pool_is_free();

    let once = site.path("endless");
    let mut run = site.run(&[
        "--cluster",
        "local:2",
        "--reprocess",
        "all",
        "-D",
        "cluster.job_timeout=20s",
    ]);
    run.env("KLIEG_WAIT_AT", "before a task: decode and write");
    run.env("KLIEG_WAIT_FOR", site.path("never"));
    run.env("KLIEG_ONCE", &once);
    let told = site.run_same(&mut run);
    assert!(
        told.contains("not done within cluster.job_timeout (20 s)"),
        "{told}"
    );
}

/// The newest report says what stages did, and why one was begun again.
fn reruns_are_in_the_report(site: &Site) {
    let mut run = site.run(&["--cluster", "local:2", "--output", "json"]);
    run.env("KLIEG_KILL_AT", "before a task: count");
    run.env("KLIEG_ONCE", site.path("once more"));
    let output = run.output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let work = &result["days"][0]["outcome"]["steps"][1]["report"]["work"][0];
    assert_eq!(work["plan"], "documents");
    assert_eq!(work["reruns"].as_array().unwrap().len(), 1, "{work}");
    let stage = &work["stages"][0];
    assert_eq!(stage["done"], stage["tasks"], "{work}");
    assert!(stage["shuffled_bytes"].as_u64().unwrap() > 0);
    site.check("");
}

#[test]
fn a_pool_outlives_its_drivers_and_its_workers() {
    let site = Site::new();
    let pool = ["--cluster", "p", "--pool-wait", "60s"];
    // All workers die at their first task, others come.
    let dying = [("KLIEG_KILL_AT", "before a task: decode and write")];
    let mut first = [
        site.worker("w1", &[], &dying),
        site.worker("w2", &[], &dying),
    ];
    let mut run = site.run(&[&pool[..], &["--min-workers", "2"]].concat());
    let run = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for worker in &mut first {
        worker.wait_told("signal: 9");
        drop(worker.child.kill());
    }
    let third = site.worker("w3", &[], &[]);
    let (code, told) = text(&run.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("begun again"), "{told}");
    site.check(&told);

    // The driver is killed while a task runs; the worker leaves it, and serves the next.
    third.wait_told("its driver has finished");
    drop(third);
    let (go, once) = (site.path("go"), site.path("waited"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let worker = site.worker("w4", &[], &waiting);
    let mut driver = site.run(&pool).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a task", || is_there(&once));
    let process = worker.serving();
    wait_for("a worker in the status", || {
        let status = text(&site.klieg(&["status"], "work").output().unwrap()).1;
        status.contains("pool       p: run ") && status.contains(": 1 slots, klieg ")
    });
    driver.kill().unwrap();
    driver.wait().unwrap();
    let status = text(&site.klieg(&["status"], "work").output().unwrap()).1;
    assert!(!status.contains("pool  "), "{status}");
    fs::write(&go, "").unwrap();
    worker.wait_told("does not answer");
    wait_for("an end of it", || !is_alive(&process));
    site.run_same(&mut site.run(&pool));
    // SIGTERM between runs.
    worker.wait_told("its driver has finished");
    signal("-TERM", &worker.child.id().to_string());
    worker.wait_told(": left");
}

#[test]
fn a_worker_leaves_a_frozen_driver_and_on_sigterm() {
    let site = Site::new();
    let (go, once) = (site.path("go"), site.path("waited"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let start = || {
        let mut run = site.run(&["--cluster", "p", "--pool-wait", "60s"]);
        run.stdout(Stdio::piped()).stderr(Stdio::piped());
        run.spawn().unwrap()
    };
    // The driver hangs.
    let worker = site.worker("w1", &[], &waiting);
    let mut driver = start();
    wait_for("a task", || is_there(&once));
    let process = worker.serving();
    signal("-STOP", &driver.id().to_string());
    worker.wait_told("does not answer");
    wait_for("an end of it", || !is_alive(&process));
    let late = site.worker("late", &["-D", "cluster.connect_timeout=1s"], &[]);
    late.wait_told("no handshake within 2 s; it is stopped, or its machine has too much to do");
    drop(late);
    driver.kill().unwrap();
    driver.wait().unwrap();
    drop(worker);
    // Its task ends within the grace: nothing is begun again. Then one that does not.
    for (name, grace, is_handed_back) in [("w2", "60s", false), ("w3", "1s", true)] {
        fs::remove_file(&once).unwrap();
        drop(fs::remove_file(&go));
        let leaving = site.worker(name, &["--grace", grace], &waiting);
        let driver = start();
        wait_for("a task", || is_there(&once));
        let other = site.worker("other", &[], &[]);
        other.wait_told("serving the driver");
        signal("-TERM", &leaving.child.id().to_string());
        if is_handed_back {
            leaving.wait_told(": left");
        }
        fs::write(&go, "").unwrap();
        let (code, told) = text(&driver.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{name}: {told}");
        assert_eq!(
            told.contains("begun again"),
            is_handed_back,
            "{name}: {told}"
        );
        leaving.wait_told(": left");
        site.check_published(&told);
    }
    // The next run removes what a late task has left.
    site.run_same(&mut site.run(&[]));
}

#[test]
fn a_busy_worker_is_heard_as_often_as_it_is_told() {
    is_heard_while_busy(&Site::new(), &["--cluster", "local:1"], None);
}

/// A task takes longer than a worker may be silent, and the heartbeats of its worker are all that the driver hears; `worker` says where
/// that finds the driver.
pub(crate) fn is_heard_while_busy(site: &Site, args: &[&str], worker: Option<&[&str]>) {
    let (go, once) = (site.path("go"), site.path("waited"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let _worker = worker.map(|args| site.worker_of("heard", args, &waiting));
    let mut run = site.run(args);
    for setting in ["cluster.heartbeat=500ms", "cluster.worker_timeout=3s"] {
        run.args(["-D", setting]);
    }
    run.envs(waiting).stdout(Stdio::piped());
    let driver = run.stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a task", || is_there(&once));
    // Longer than Ballista's own pause, and than the time-out after it.
    std::thread::sleep(Duration::from_secs(9));
    fs::write(&go, "").unwrap();
    let (code, told) = text(&driver.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("begun again"), "{told}");
    site.check(&told);
}

#[test]
fn a_worker_frozen_in_any_stage_counts_nowhere() {
    let site = Site::new();
    for stage in STAGES.iter().chain(&OF_MODELS) {
        let (point, once) = (format!("before a task: {stage}"), site.path("frozen"));
        let frozen = [
            ("KLIEG_STOP_AT", point.as_str()),
            ("KLIEG_ONCE", once.to_str().unwrap()),
        ];
        let workers = ["w1", "w2"].map(|name| site.worker(name, &[], &frozen));
        let train = match OF_MODELS.contains(stage) {
            true => "cluster.train_from=1",
            false => "cluster.train_from=1000000",
        };
        let pool = ["--cluster", "p", "--min-workers", "2", "-D", train];
        let run = site.run(&pool).output();
        let (code, told) = text(&run.unwrap());
        assert_eq!(code, Some(0), "{stage}: {told}");
        assert!(told.contains("begun again"), "{stage}: {told}");
        let before = site.warehouse.published();
        let processes = workers.each_ref().map(Worker::serving);
        if let Some(process) = processes.iter().find(|process| is_stopped(process)) {
            signal("-CONT", process);
            wait_for("an end of it", || !is_alive(process));
        }
        assert!(before == site.warehouse.published(), "{stage}: {told}");
        site.check_published(&told);
        fs::remove_file(&once).unwrap();
    }
    // The next run removes what a late task has left.
    site.run_same(&mut site.run(&[]));
}

#[test]
fn a_result_on_a_frozen_worker_is_made_anew() {
    let site = Site::new();
    let workers = ["w1", "w2"].map(|name| site.worker(name, &[], &[]));
    let mut process = String::new();
    let told = result_spoilt(&site, || {
        process = workers[0].serving();
        signal("-STOP", &process);
    });
    signal("-CONT", &process);
    assert!(told.contains("was silent for 7 s"), "{told}");
    wait_for("an end of it", || !is_alive(&process));
    site.check_published(&told);
}

#[test]
fn a_result_that_ends_early_is_made_anew() {
    let site = Site::new();
    let _workers = ["w1", "w2"].map(|name| site.worker(name, &[], &[]));
    let told = result_spoilt(&site, || {
        let cut = ["w1", "w2"].map(|name| cut_files(&site.path(name)));
        assert!(cut.iter().sum::<usize>() > 0);
    });
    assert!(
        told.contains("rows came") && told.contains("begun again"),
        "{told}"
    );
    site.check_published(&told);
}

/// A run on two workers, of whose first result something becomes before it is read; returns what it told.
#[track_caller]
fn result_spoilt(site: &Site, spoil: impl FnOnce()) -> String {
    let (go, once, log) = (site.path("go"), site.path("done"), site.path("driver.log"));
    let mut run = site.run(&["--cluster", "p", "--min-workers", "2"]);
    run.env("KLIEG_WAIT_AT", "before a result is read");
    run.env("KLIEG_WAIT_FOR", &go).env("KLIEG_ONCE", &once);
    let mut driver = run.stderr(File::create(&log).unwrap()).spawn().unwrap();
    wait_for("a result", || is_there(&once));
    spoil();
    fs::write(&go, "").unwrap();
    let code = driver.wait().unwrap().code();
    let told = fs::read_to_string(&log).unwrap();
    assert_eq!(code, Some(0), "{told}");
    told
}

/// Cuts every file of shuffles to its half; returns how many.
fn cut_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let cut = |path: PathBuf| match path.is_dir() {
        true => cut_files(&path),
        false if path.components().any(|part| part.as_os_str() == "shuffle") => {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            1
        }
        false => 0,
    };
    entries.map(|entry| cut(entry.path())).sum()
}

#[test]
fn workers_of_a_driver_that_is_killed_leave() {
    let site = Site::new();
    let once = site.path("waited");
    let mut run = site.run(&["--cluster", "local:2"]);
    run.env("KLIEG_WAIT_AT", "before a task: decode and write");
    run.env("KLIEG_WAIT_FOR", site.path("never"));
    run.env("KLIEG_ONCE", &once);
    let log = site.path("driver.log");
    let mut driver = run.stderr(File::create(&log).unwrap()).spawn().unwrap();
    wait_for("a task", || is_there(&once));
    let told = fs::read_to_string(&log).unwrap();
    let processes: Vec<_> = told
        .lines()
        .filter(|line| line.contains(": serving the driver"))
        .map(|line| {
            line.split_whitespace()
                .nth(2)
                .unwrap()
                .trim_end_matches(':')
                .to_owned()
        })
        .collect();
    assert_eq!(processes.len(), 2, "{told}");
    driver.kill().unwrap();
    driver.wait().unwrap();
    for process in &processes {
        wait_for("an end of it", || !is_alive(process));
    }
    site.run_same(&mut site.run(&["--cluster", "local:2"]));
}

#[test]
fn what_keeps_workers_and_drivers_apart_is_said() {
    let site = Site::new();
    let fails = |args: &[&str], code: i32, says: &[&str]| {
        let (found, told) = text(&site.run(args).output().unwrap());
        assert_eq!(found, Some(code), "{told}");
        for text in says {
            assert!(told.contains(text), "{text}: {told}");
        }
        assert!(site.warehouse.published().is_empty(), "{told}");
        site.check_pool_is_free();
    };
    let soon = ["--pool-wait", "3s"];
    let with = |args: &[&'static str]| [args, &soon[..]].concat();
    fails(
        &with(&["--cluster", "p"]),
        6,
        &["0 of 1 workers", "no worker has dialled"],
    );
    fails(&["--cluster", "a b"], 2, &["neither the name of a pool"]);
    fails(
        &["--cluster", "p", "-D", "cluster.bind=0.0.0.0"],
        2,
        &["set cluster.external_host"],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("cluster.port={}", taken.local_addr().unwrap().port());
    fails(
        &[&with(&["--cluster", "p"])[..], &["-D", &port]].concat(),
        2,
        &["cannot listen there"],
    );

    // Workers that are not what they must be.
    let lost = site.worker("lost", &["--external-host", "no-such-host.invalid"], &[]);
    let says = ["cannot reach it at no-such-host.invalid", "--external-host"];
    fails(&["--cluster", "p", "--pool-wait", "10s"], 6, &says);
    let good = site.worker("good", &[], &[]);
    let told = site.run_same(&mut site.run(&["--cluster", "p", "--pool-wait", "60s"]));
    drop((lost, good));
    assert!(!told.contains("begun again"), "{told}");
    let stranger = site.worker_of_another_build(&["--pool", "p"]);
    others_work(&site, &stranger);
    fails(
        &["--cluster", "p", "--pool-wait", "10s"],
        6,
        &["no worker has dialled; worker ", "is klieg"],
    );
    stranger.wait_told("install the same program on all nodes");
    drop(stranger);
    keys_and_sizes(&site);
}

#[test]
fn workers_say_what_they_cannot_use() {
    let site = Site::new();
    let fails = |args: &[&str], work: &str, says: &str| {
        let (code, told) = text(&site.klieg(args, work).output().unwrap());
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(says), "{told}");
    };
    let worker = ["worker", "--pool", "p"];
    let file = "flow/landing/nfcapd.201607081201";
    fails(
        &["worker", "--pool", "../p"],
        "work",
        "neither the name of a pool",
    );
    fails(&worker, file, "Not a directory");
    let local = ["run", JOB, "--date", DAY, "--cluster", "local:1"];
    fails(&local, file, "set another work_dir");
    assert!(site.warehouse.published().is_empty());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(
        &[&worker[..], &["--status", &address]].concat(),
        "work",
        "cannot listen there",
    );
}

/// A worker of another build is told of also where enough others work.
fn others_work(site: &Site, stranger: &Worker) {
    let go = site.path("go");
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
    ];
    let good = site.worker("good", &[], &waiting);
    let log = site.path("others.log");
    let mut run = site.run(&["--cluster", "p", "--pool-wait", "60s"]);
    let mut run = run.stderr(File::create(&log).unwrap()).spawn().unwrap();
    stranger.wait_told("install the same program on all nodes");
    fs::write(&go, "").unwrap();
    let code = run.wait().unwrap().code();
    let told = fs::read_to_string(&log).unwrap();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("install the same program"), "{told}");
    site.check(&told);
    drop(good);
}

/// Files that others can read, memory that is too little.
fn keys_and_sizes(site: &Site) {
    let key = site.path("pool.pem");
    let made = klieg_stdout(&["emit", "pool-key"]);
    fs::write(&key, made).unwrap();
    let secret = format!("pool.secret={}", key.display());
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&key, open.clone()).unwrap();
    let run = |more: &[&str]| {
        let args = [&["--cluster", "p", "--pool-wait", "20s"], more].concat();
        text(&site.run(&args).output().unwrap())
    };
    let (code, told) = run(&["-D", &secret]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("others can read it: chmod 600"), "{told}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let keyed = site.worker("keyed", &["-D", &secret], &[]);
    let (code, told) = run(&["-D", &secret, "--steps", "ingest"]);
    assert_eq!(code, Some(0), "{told}");
    drop(keyed);
    // Workers of this machine have the key of their run.
    let local = ["--cluster", "local:1", "-D", &secret, "--reprocess", "all"];
    site.run_same(&mut site.run(&local));

    // A pool file that others could have written.
    let worker = site.worker("careful", &[], &[]);
    let file = site.path(".klieg/pools/p.json");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, open).unwrap();
    worker.wait_told("has mode 644, which lets others in");
    fs::remove_file(&file).unwrap();
    drop(worker);
    let small = site
        .klieg(&["worker", "--pool", "p", "--memory", "64MiB"], "work")
        .output();
    let (code, told) = text(&small.unwrap());
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("the least that works is"), "{told}");
    let shared = ["--cluster", "local:9"];
    let (code, told) = text(&site.run(&shared).output().unwrap());
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("the least that works is 1872 MiB"), "{told}");
}

#[test]
fn a_second_driver_queues() {
    let site = Site::new();
    let mut first = site.run(&["--cluster", "p", "--pool-wait", "60s"]);
    let mut first = first
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("a pool file", || {
        is_there(&site.path(".klieg/pools/p.json"))
    });
    let (root, day) = (site.path("").display().to_string(), "2016-07-09");
    klieg_stdout(&["synth", "--date", day, "--flows", "1000", "--out", &root]);
    let second = |wait: &str| {
        let args = [
            "run",
            JOB,
            "--date",
            day,
            "--cluster",
            "p",
            "--pool-wait",
            wait,
        ];
        site.klieg(&args, "work")
    };
    let told = text(&second("1s").output().unwrap());
    assert_eq!(told.0, Some(4), "{}", told.1);
    assert!(told.1.contains("pool p: waiting behind run "), "{}", told.1);
    let log = site.path("second.log");
    let mut second = second("60s");
    let mut second = second.stderr(File::create(&log).unwrap()).spawn().unwrap();
    wait_for("a queue", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("waiting behind run ")
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let worker = site.worker("last", &[], &[]);
    let code = second.wait().unwrap().code();
    drop(worker);
    assert_eq!(code, Some(0), "{}", fs::read_to_string(&log).unwrap());
}

#[test]
fn a_full_disk_takes_its_worker_out() {
    let site = Site::new();
    let disk = site.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=100m", "tmpfs"])
        .arg(&disk)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        crate::support::warn("skipped a_full_disk_takes_its_worker_out: no right to mount");
        return;
    }
    let (go, once) = (site.path("go"), site.path("waited"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let full = site.worker("full", &["--work-dir", disk.to_str().unwrap()], &waiting);
    let run = site
        .run(&["--cluster", "p", "--pool-wait", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("a task", || is_there(&once));
    let good = site.worker("good", &[], &[]);
    good.wait_told("serving the driver");
    let filled = fs::write(disk.join("fill"), vec![1; 101 << 20]);
    assert!(filled.is_err());
    fs::write(&go, "").unwrap();
    let (code, told) = text(&run.wait_with_output().unwrap());
    full.wait_told("not fit for work");
    drop((full, good));
    site.check(&told);
    let no_place = on_a_bad_disk(&site, &disk);
    let unmounted = Command::new("umount").arg(&disk).status();
    assert!(unmounted.unwrap().success());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("this worker leaves"), "{told}");
    for (place, code, says) in [
        (&no_place[0], 6, "No space left on device"),
        (&no_place[1], 5, "Read-only file system"),
    ] {
        assert_eq!(place.0, Some(code), "{}", place.1);
        assert!(place.1.contains(says), "{}", place.1);
    }
    assert!(site.warehouse.published().is_empty());
}

/// Runs whose workers have no room from the start, and no right to write.
fn on_a_bad_disk(site: &Site, disk: &Path) -> [(Option<i32>, String); 2] {
    let args = ["run", JOB, "--date", DAY, "--cluster", "local:1"];
    let run = || text(&site.klieg(&args, "disk").output().unwrap());
    let full = run();
    let mut remount = Command::new("mount");
    let remounted = remount.args(["-o", "remount,ro"]).arg(disk).status();
    assert!(remounted.unwrap().success());
    [full, run()]
}

/// What a worker answers about itself.
fn ask(port: u16, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_port_is_closed_to_strangers() {
    let site = Site::new();
    let (go, once) = (site.path("go"), site.path("waited"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let worker = site.worker("w", &[], &waiting);
    let mut run = site.run(&["--cluster", "p", "--pool-wait", "60s"]);
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let driver = run.spawn().unwrap();
    wait_for("a task", || is_there(&once));
    let file = fs::read_to_string(site.path(".klieg/pools/p.json")).unwrap();
    let pool: Value = serde_json::from_str(&file).unwrap();
    let text_of = |key: &str| pool[key].as_str().unwrap().to_owned();
    let own = text_of("authority");
    let (build, run_id) = (text_of("build"), text_of("run"));
    let agent = format!("klieg/{build}/{run_id}");
    let processes = [driver.id().to_string(), worker.serving()];
    let ports = processes
        .each_ref()
        .map(|process| listening(std::slice::from_ref(process)));
    let [[of_driver], [of_worker]] = [&ports[0][..], &ports[1][..]] else {
        panic!("{ports:?}");
    };
    worker.wait_told(": decode and write");
    let [of_parent] = listening(&[worker.child.id().to_string()])[..] else {
        panic!("{}", worker.told());
    };
    for (name, answer) in call_all(of_parent, Shown::Plain, &agent) {
        assert!(answer.is_err(), "{name}");
    }
    assert!(ask(of_parent, "/healthz").ends_with("ok\n"));
    assert!(ask(of_parent, "/metrics").contains("klieg_worker_serving 1"));
    assert!(ask(of_parent, "/").starts_with("HTTP/1.1 404"));
    let forged = forged_authority();
    for port in [*of_driver, *of_worker] {
        let who = (build.as_str(), run_id.as_str());
        assert_closed_to_all(port, (&own, &forged), who);
    }
    // A member of the run has two calls at the driver.
    for (name, answer) in call_all(*of_driver, Shown::Of(&own), &agent) {
        let code = answer.err().map_or(tonic::Code::Ok, |status| status.code());
        let wanted = match name {
            "executor_stopped" => tonic::Code::Ok,
            "poll_work" => tonic::Code::InvalidArgument,
            _ => tonic::Code::Unimplemented,
        };
        assert_eq!(code, wanted, "{name}");
    }
    fs::write(&go, "").unwrap();
    let (code, told) = text(&driver.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    site.check(&told);
    ports_of_local_workers(&site, &forged);
}

/// Those of workers that a driver has started itself.
fn ports_of_local_workers(site: &Site, forged: &str) {
    let (go, once) = (site.path("go on"), site.path("waited there"));
    let mut run = site.run(&["--cluster", "local:1"]);
    run.env("KLIEG_WAIT_AT", "before a task: decode and write");
    run.env("KLIEG_WAIT_FOR", &go).env("KLIEG_ONCE", &once);
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let driver = run.spawn().unwrap();
    wait_for("a task", || is_there(&once));
    let own = [vec![driver.id().to_string()], children(driver.id())].concat();
    let ports = listening(&own);
    assert_eq!(ports.len(), 2, "{own:?}");
    for port in ports {
        for shown in [Shown::Plain, Shown::Nameless, Shown::Of(forged)] {
            assert_closed(port, shown, "klieg/0123456789abcdef/run", None);
        }
    }
    fs::write(&go, "").unwrap();
    let (code, told) = text(&driver.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    site.check(&told);
}

#[test]
fn worker_units_are_complete() {
    let unit = klieg_stdout(&[
        "emit", "systemd", "--pool", "nightly", "--slots", "4", "--memory", "6GiB",
    ]);
    for line in [
        "ExecStart=/usr/local/bin/klieg worker --pool nightly --config /etc/klieg/site.yaml --slots 4 --memory 6GiB",
        "NoNewPrivileges=yes",
        "MemoryMax=7168M",
        "StateDirectory=klieg/work\n",
        "ReadWritePaths=\n",
    ] {
        assert!(unit.contains(line), "{line}: {unit}");
    }
    let folders = ["--work-dir", "/scratch/klieg", "--warehouse", "/mnt/spot"];
    let elsewhere = [&["emit", "systemd", "--pool", "nightly"][..], &folders].concat();
    let elsewhere = klieg_stdout(&elsewhere);
    for line in [
        "StateDirectory=\n",
        "ReadWritePaths=-/scratch/klieg -/mnt/spot\n",
    ] {
        assert!(elsewhere.contains(line), "{line}: {elsewhere}");
    }
}

#[test]
fn a_yarnfile_has_only_fields_of_the_service_api() {
    let ticket = ["--principal", "klieg/_HOST@LAB", "--keytab", "file:///k"];
    let yarn = ["emit", "yarn", "--pool", "nightly", "--workers", "3"];
    let yarn = klieg_stdout(&[&yarn[..], &ticket].concat());
    let yarn: Value = serde_json::from_str(&yarn).unwrap();
    let component = &yarn["components"][0];
    assert_eq!(component["number_of_containers"], 3);
    // Fields of the service API of Hadoop 3.
    let known = |value: &Value, fields: &[&str]| {
        let keys = value.as_object().unwrap().keys();
        keys.filter(|key| !fields.contains(&key.as_str())).count() == 0
    };
    assert!(known(
        &yarn,
        &[
            "name",
            "version",
            "description",
            "queue",
            "components",
            "configuration",
            "kerberos_principal",
            "lifetime"
        ]
    ));
    assert!(known(
        component,
        &[
            "name",
            "number_of_containers",
            "launch_command",
            "restart_policy",
            "resource",
            "configuration",
            "dependencies",
            "artifact"
        ]
    ));
    assert!(known(
        &yarn["kerberos_principal"],
        &["principal_name", "keytab"]
    ));
    assert!(known(
        &component["resource"],
        &["cpus", "memory", "profile", "additional"]
    ));
    for configuration in [&yarn, component] {
        assert!(known(
            &configuration["configuration"],
            &["env", "files", "properties"]
        ));
    }
    for file in component["configuration"]["files"].as_array().unwrap() {
        assert!(known(
            file,
            &["type", "src_file", "dest_file", "properties"]
        ));
    }
}

#[test]
fn names_in_worker_units_are_plain() {
    let deployment = klieg_stdout(&["emit", "kubernetes", "--pool", "nightly"]);
    assert!(
        deployment.contains("livenessProbe") && !deployment.contains('@'),
        "{deployment}"
    );
    // Also names that no worker takes.
    for name in ["a\nExecStartPre=x", "a.b", &"a".repeat(65)] {
        let bad = crate::support::klieg(&["emit", "systemd", "--pool", name]);
        assert_eq!(bad.status.code(), Some(2), "{name}");
    }
}

/// Paths and checksums of what is published, as any of the NameNodes tells them.
pub(crate) fn on_hdfs(lab: &Lab) -> BTreeMap<String, String> {
    let listed = lab.sh(&["fs", "-ls", "-R", "/user/spot/day/flow"]);
    let file = |line: &str| {
        let is_data = line.starts_with('-') && !line.ends_with("_manifest.json");
        let path = line
            .split_whitespace()
            .nth(7)
            .filter(|_| is_data)?
            .to_owned();
        (!path.starts_with("/user/spot/day/flow/landing")).then_some(path)
    };
    let paths: Vec<_> = listed.lines().filter_map(file).collect();
    let paths = paths.iter().map(String::as_str);
    let summed = lab.sh(&["fs", "-checksum"]
        .into_iter()
        .chain(paths)
        .collect::<Vec<_>>());
    let sum = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words[0].to_owned(), words[1..].join(" "))
    };
    summed.lines().map(sum).collect()
}

#[test]
fn workers_on_hdfs() {
    let Some(lab) = Lab::up(&["ha"]) else {
        return;
    };
    let site = Site::new();
    lab.land("day", &site.path("flow/landing"));
    let settings: Vec<_> = SETTINGS
        .iter()
        .flat_map(|setting| ["-D", setting])
        .collect();
    let work = format!("work_dir={}", site.path("work").display());
    let args = |more: &[&str]| {
        let all = [
            &["--date", DAY, "--reprocess", "all", "-D", &work],
            &settings[..],
            more,
        ]
        .concat();
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let run = |more: &[&str], environment: &[(&str, &str)]| {
        let mut command = lab.command();
        command
            .args(["run", JOB, "-D", &lab.warehouse("day")])
            .args(args(more));
        command.envs(environment.iter().copied());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let files = || on_hdfs(&lab);
    let (code, told) = text(&run(&[], &[]).wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    let wanted = files();
    assert!(wanted.len() > 10, "{wanted:?}");
    let check = |told: &str| assert_eq!(files(), wanted, "{told}");
    pool_on_hdfs(&OnHdfs::new(&lab, &site), &run, &check);
    killed_on_hdfs(&site, &run, &check);
    // A worker is killed, and the active NameNode hangs while tasks run, for longer than the run.
    let once = site.path("once");
    let killing = [
        ("KLIEG_KILL_AT", "after a task: decode and write"),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let running = run(
        &["--cluster", "local:2", "-D", "hadoop.call_timeout=3s"],
        &killing,
    );
    wait_for("a kill", || is_there(&once));
    lab.sh(&["stop", "nn1"]);
    lab.sh(&["failover", "nn2"]);
    let (code, told) = text(&running.wait_with_output().unwrap());
    lab.sh(&["kill", "nn1"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("begun again"), "{told}");
    assert_eq!(files(), wanted, "{told}");
    // Without Kerberos nobody believes a pool file.
    let (code, told) = text(&run(&["--cluster", "p"], &[]).wait_with_output().unwrap());
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("set pool.secret"), "{told}");
    without_datanodes(&lab, &site, &run);
}

/// All DataNodes die while workers have tasks that read from them; then they are gone for a run without workers.
fn without_datanodes(lab: &Lab, site: &Site, run: &Started) {
    let (go, once) = (site.path("go on"), site.path("looks"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: look flows up"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let hasty = ["data_timeout=3s", "patience=8s", "write_patience=10s"];
    let hasty = hasty.map(|setting| format!("hadoop.{setting}"));
    let hasty: Vec<_> = hasty.iter().flat_map(|text| ["-D", text]).collect();
    let args = [&["--cluster", "local:1"], &hasty[..]].concat();
    let running = run(&args, &waiting);
    wait_for("a task", || is_there(&once));
    lab.sh(&["kill", "dn1"]);
    lab.sh(&["kill", "dn2"]);
    fs::write(&go, "").unwrap();
    let (code, told) = text(&running.wait_with_output().unwrap());
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("the cluster does not answer"), "{told}");
    // Nobody waits for the report of a failure without having been told of that.
    assert!(told.contains("its report is being written"), "{told}");
    let args = [&["--steps", "suspicious"], &hasty[..]].concat();
    let (code, told) = text(&run(&args, &[]).wait_with_output().unwrap());
    assert_eq!(code, Some(6), "{told}");
}

/// A run with arguments and variables.
type Started<'a> = dyn Fn(&[&str], &[(&str, &str)]) -> Child + 'a;

/// A driver is killed while its workers decode, and they leave; then a worker is killed, or stopped, in each other stage.
fn killed_on_hdfs(site: &Site, run: &Started, check: &dyn Fn(&str)) {
    let on_workers = ["--cluster", "local:2", "-D", "cluster.train_from=1"];
    let once = site.path("driver");
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", "/nowhere"),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let mut driver = run(&on_workers, &waiting);
    wait_for("a task", || is_there(&once));
    let workers = children(driver.id());
    assert_eq!(workers.len(), 2, "{workers:?}");
    driver.kill().unwrap();
    driver.wait().unwrap();
    for process in &workers {
        wait_for("an end of it", || !is_alive(process));
    }
    for stage in STAGES[1..].iter().chain(&OF_MODELS) {
        for what in ["KILL", "STOP"] {
            let once = site.path(&format!("{what} {stage}"));
            let (point, how) = (
                format!("before a task: {stage}"),
                format!("KLIEG_{what}_AT"),
            );
            let fault = [
                (how.as_str(), point.as_str()),
                ("KLIEG_ONCE", once.to_str().unwrap()),
            ];
            let output = run(&on_workers, &fault).wait_with_output().unwrap();
            let (code, told) = text(&output);
            assert_eq!(code, Some(0), "{what} {stage}: {told}");
            assert!(told.contains("again"), "{what} {stage}: {told}");
            check(&format!("{what} {stage}: {told}"));
        }
    }
}

/// Workers of a pool on HDFS, with a key on every node.
struct OnHdfs<'a> {
    lab: &'a Lab,
    site: &'a Site,
    secret: String,
}

impl<'a> OnHdfs<'a> {
    fn new(lab: &'a Lab, site: &'a Site) -> Self {
        let key = site.path("pool.pem");
        fs::write(&key, klieg_stdout(&["emit", "pool-key"])).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            lab,
            site,
            secret: format!("pool.secret={}", key.display()),
        }
    }

    /// Arguments of a run that uses them.
    fn pool(&self) -> [&str; 6] {
        ["--cluster", "p", "--pool-wait", "60s", "-D", &self.secret]
    }

    fn worker(&self, name: &str, environment: &[(&str, &str)]) -> Worker {
        let log = self.site.path(&format!("{name}.log"));
        let work = format!("work_dir={}", self.site.path(name).display());
        let mut command = self.lab.command();
        command.args(["worker", "--pool", "p", "--slots", "1", "-D", &self.secret]);
        command.args(["-D", &self.lab.warehouse("day"), "-D", &work]);
        command.args(["-D", "hadoop.call_timeout=3s", "-D", "hadoop.patience=5s"]);
        Worker::start(command.envs(environment.iter().copied()), log)
    }
}

/// What may happen to workers of a pool.
fn pool_on_hdfs(workers: &OnHdfs<'_>, run: &Started, check: &dyn Fn(&str)) {
    without_hdfs(workers, run);
    check("without HDFS");
    all_die_and_one_freezes(workers, run);
    check("frozen");
}

/// The only worker dies, and comes again; then one of two freezes while it decodes, and wakes while the run is at its next try: what it
/// uploads is not taken.
fn all_die_and_one_freezes(workers: &OnHdfs<'_>, run: &Started) {
    let (died, frozen) = (workers.site.path("died"), workers.site.path("froze"));
    let point = "before a task: decode and write";
    let dying = [
        ("KLIEG_KILL_AT", point),
        ("KLIEG_ONCE", died.to_str().unwrap()),
    ];
    let alone = workers.worker("dying", &dying);
    let output = run(&workers.pool(), &[]).wait_with_output().unwrap();
    let (code, told) = text(&output);
    assert_eq!(code, Some(0), "{told}");
    assert!(is_there(&died) && told.contains("begun again"), "{told}");
    drop(alone);
    let freezing = [
        ("KLIEG_STOP_AT", point),
        ("KLIEG_ONCE", frozen.to_str().unwrap()),
    ];
    let pair = [
        workers.worker("one", &freezing),
        workers.worker("other", &freezing),
    ];
    let args = [&workers.pool()[..], &["--min-workers", "2"]].concat();
    let mut driver = run(&args, &[]);
    let mut lines = BufReader::new(driver.stderr.take().unwrap()).lines();
    let mut told = String::new();
    while !told.contains("begun again") {
        let line = lines.next().expect(&told).unwrap();
        told.push_str(&line);
    }
    let stopped = pair.iter().find(|worker| is_stopped(&worker.serving()));
    signal("-CONT", &stopped.unwrap().serving());
    lines.for_each(|line| told.push_str(&line.unwrap()));
    assert!(driver.wait().unwrap().success(), "{told}");
}

/// One of two workers loses both NameNodes while it has a task: it leaves, and the run ends with the other.
fn without_hdfs(workers: &OnHdfs<'_>, run: &Started) {
    let OnHdfs { lab, site, .. } = workers;
    // What the lost worker knows of HDFS leads through ports that can be closed.
    let (_, http) = lab.environment["NN_HTTP"].rsplit_once(':').unwrap();
    let first = http.parse::<u16>().unwrap() - 70;
    let name_nodes = [first, first + 1].map(|port| (port, Proxy::to(port)));
    let conf = site.path("conf");
    fs::create_dir(&conf).unwrap();
    for file in ["core-site.xml", "hdfs-site.xml"] {
        let from = Path::new(&lab.environment["HADOOP_CONF_DIR"]).join(file);
        let mut text = fs::read_to_string(from).unwrap();
        for (port, proxy) in &name_nodes {
            let (old, new) = (
                format!("localhost:{port}<"),
                format!("localhost:{}<", proxy.port),
            );
            text = text.replace(&old, &new);
        }
        fs::write(conf.join(file), text).unwrap();
    }
    let (go, once) = (site.path("go"), site.path("waited"));
    let lost = workers.worker(
        "lost",
        &[
            ("HADOOP_CONF_DIR", conf.to_str().unwrap()),
            ("KLIEG_WAIT_AT", "before a task: decode and write"),
            ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
            ("KLIEG_ONCE", once.to_str().unwrap()),
        ],
    );
    let running = run(&workers.pool(), &[]);
    wait_for("a task", || is_there(&once));
    let good = workers.worker("good", &[]);
    good.wait_told("serving the driver");
    drop(name_nodes);
    fs::write(&go, "").unwrap();
    let (code, told) = text(&running.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("begun again"), "{told}");
    assert!(told.contains("this worker leaves"), "{told}");
    lost.wait_told("not fit for work");
}
