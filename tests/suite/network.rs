//! A driver and two workers on three hosts whose network fails: the bytes of a run in one process, or a clear end.
//!
//! The hosts are network namespaces, each with a cable (veth) to a process that carries frames between them (`tests/net/switch.py`), which
//! needs root.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::Site;
use crate::cluster::Worker;
use crate::cluster::text;
use crate::support::warn;

const SWITCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/net/switch.py");
/// Longer than any time-out of the tests, so that nothing hangs for ever.
const POOL: [&str; 6] = [
    "--cluster",
    "p",
    "--pool-wait",
    "60s",
    "-D",
    "cluster.bind=10.77.0.1",
];

struct Network {
    name: String,
    switch: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Network {
    /// Three hosts; `None`, and told loudly, where this machine lets nobody make any.
    fn new(name: &str) -> Option<Self> {
        let name = format!("klieg{}{name}", std::process::id());
        let mut switch = Command::new("python3")
            .args([SWITCH, &name, "3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(switch.stdout.take().unwrap());
        let mut ready = String::new();
        answers.read_line(&mut ready).unwrap();
        if ready.trim() != "ready" {
            let output = switch.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = error.lines().last().unwrap_or("").to_owned();
            warn(&format!(
                "no test of networks: namespaces cannot be made here: {last}"
            ));
            return None;
        }
        Some(Self {
            name,
            commands: switch.stdin.take(),
            switch,
            answers,
        })
    }

    fn tell(&mut self, command: &str) {
        let commands = self.commands.as_mut().unwrap();
        commands
            .write_all(format!("{command}\n").as_bytes())
            .unwrap();
        let mut done = String::new();
        self.answers.read_line(&mut done).unwrap();
        assert_eq!(done.trim(), "done", "{command}");
    }

    /// The same command on a host.
    fn on(&self, host: u8, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &format!("{}-{host}", self.name)]);
        there.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            there.env(name, value.unwrap());
        }
        there
    }

    fn worker(&self, site: &Site, host: u8, environment: &[(&str, &str)]) -> Worker {
        let bind = format!("10.77.0.{host}");
        let name = format!("host{host}");
        let args = ["--pool", "p", "--bind", &bind];
        site.worker_by(&name, &args, environment, |command| self.on(host, command))
    }

    /// The run of two workers on their hosts: the bytes of one process.
    fn run_same(&self, site: &Site) -> String {
        let _workers = [2, 3].map(|host| self.worker(site, host, &[]));
        site.run_same(&mut self.run(site))
    }

    fn run(&self, site: &Site) -> Command {
        self.on(1, &site.run(&[&POOL[..], &["--min-workers", "2"]].concat()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.commands.take());
        drop(self.switch.wait());
    }
}

#[test]
fn a_slow_network_that_loses_packets_changes_nothing() {
    let Some(mut network) = Network::new("slow") else {
        return;
    };
    let site = Site::new();
    network.tell("delay 200");
    network.tell("loss 1");
    network.run_same(&site);
}

#[test]
fn what_a_worker_does_while_it_is_cut_off_counts_nowhere() {
    let Some(mut network) = Network::new("cut") else {
        return;
    };
    let site = Site::new();
    // Whichever comes first to the end of a task is cut off in it.
    let hosts = [2, 3].map(|host| {
        let at = |what: &str| site.path(&format!("{what}{host}"));
        let (go, once) = (at("go"), at("once"));
        let waits = [
            ("KLIEG_WAIT_AT", "after a task: make words, count"),
            ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
            ("KLIEG_ONCE", once.to_str().unwrap()),
        ];
        let worker = network.worker(&site, host, &waits);
        (host, worker, go, once)
    });
    let mut run = network.run(&site);
    let log = site.path("run.log");
    let run = run
        .stderr(fs::File::create(&log).unwrap())
        .stdout(Stdio::null());
    let mut run = run.spawn().unwrap();
    let first = || {
        hosts
            .iter()
            .position(|host| crate::cluster::is_there(&host.3))
    };
    wait_in(&log, &mut run, "a task", || first().is_some());
    let [cut, other] = [first().unwrap(), 1 - first().unwrap()];
    network.tell(&format!("cut {}", hosts[cut].0));
    fs::write(&hosts[other].2, "").unwrap();
    let told = || fs::read_to_string(&log).unwrap();
    wait_in(&log, &mut run, "another try", || {
        told().contains("begun again")
    });
    network.tell(&format!("join {}", hosts[cut].0));
    fs::write(&hosts[cut].2, "").unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told());
    site.check(&told());
}

/// Waits for what a run that has not ended does.
#[track_caller]
fn wait_in(log: &Path, run: &mut Child, what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        let is_late = start.elapsed() > Duration::from_secs(90);
        let is_over = run.try_wait().unwrap().is_some();
        let told = || fs::read_to_string(log).unwrap();
        assert!(!is_late && !is_over || is_so(), "no {what}: {}", told());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn workers_that_cannot_reach_each_other_are_found_out() {
    let Some(mut network) = Network::new("apart") else {
        return;
    };
    let site = Site::new();
    network.tell("block 2 3");
    let told = network.run_same(&site);
    assert!(told.contains("begun again"), "{told}");
}

#[test]
fn a_firewall_is_named_by_who_cannot_dial_whom() {
    let Some(mut network) = Network::new("wall") else {
        return;
    };
    let site = Site::new();
    network.tell("block 1 2");
    let worker = network.worker(&site, 2, &[]);
    let args = [&POOL[..2], &POOL[4..], &["--pool-wait", "12s"]].concat();
    let output = network.on(1, &site.run(&args)).output().unwrap();
    let (code, told) = text(&output);
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("no worker has dialled"), "{told}");
    assert!(told.contains("10.77.0.1"), "{told}");
    worker.wait_told("open the firewall from the workers to it");
    assert!(worker.told().contains("at 10.77.0.1:"), "{}", worker.told());
    drop(worker);
}
