//! Workers in containers of YARN, by the command that `klieg emit yarn` writes: they find the driver by the pool file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use crate::cluster::Site;
use crate::cluster::Worker;
use crate::cluster::on_hdfs;
use crate::cluster::text;
use crate::cluster::wait_for;
use crate::support::klieg_stdout;
use crate::support::lab::Lab;

const JOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
const SITE: &str = "\
ingest: {settle: 0s, split_bytes: 256KiB}
suspicious: {models: 1, token_models: 1}
threads: 2
cluster: {worker_timeout: 7s}
";

/// The start of a container: what YARN localizes for a service lies beside the command.
fn start(folder: &Path, site: &Path, more: &str) -> PathBuf {
    let form = klieg_stdout(&[
        "emit", "yarn", "--pool", "p", "--slots", "1", "--memory", "512MiB",
    ]);
    let form: Value = serde_json::from_str(&form).unwrap();
    let component = &form["components"][0];
    let command = component["launch_command"].as_str().unwrap();
    let files: Vec<_> = component["configuration"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["dest_file"].as_str().unwrap())
        .collect();
    assert_eq!(files, ["klieg", "site.yaml"]);
    let (klieg, site) = (env!("CARGO_BIN_EXE_klieg"), site.display());
    let text = format!(
        "#!/bin/bash\nset -e\nln -s {klieg} klieg\nln -s {site} site.yaml\n{more}\n{}\n",
        command.replace("chmod +x klieg && ", "")
    );
    let path = folder.join("start.sh");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// An application of two containers; ended when it is dropped.
struct Application<'a> {
    lab: &'a Lab,
    client: Child,
    log: PathBuf,
}

impl<'a> Application<'a> {
    fn start(lab: &'a Lab, folder: &Path, start: &Path) -> Self {
        let log = folder.join("yarn.log");
        let mut command = lab.script(&["run-on-yarn", "-n", "2", "-mem", "700", "-exec"]);
        command.arg(start).stdout(fs::File::create(&log).unwrap());
        Self {
            lab,
            client: command.stderr(Stdio::null()).spawn().unwrap(),
            log,
        }
    }
}

impl Drop for Application<'_> {
    fn drop(&mut self) {
        let told = fs::read_to_string(&self.log).unwrap();
        if let Some(id) = told.split_whitespace().next() {
            drop(
                self.lab
                    .script(&["yarn", "application", "-kill", id])
                    .output(),
            );
        }
        drop(self.client.wait());
    }
}

#[track_caller]
fn run(lab: &Lab, site: &Path, work: &Path, more: &[&str]) -> String {
    let mut command = lab.command();
    command.args(["run", JOB, "--config"]).arg(site);
    command.args(["--date", "2016-07-08", "--reprocess", "all", "-D"]);
    command
        .arg(format!("work_dir={}", work.display()))
        .args(more);
    let (code, told) = text(&command.output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    told
}

fn workers_in_containers(mode: &str, settings: &str, more: &str) {
    let Some(lab) = Lab::up(&[mode, "--yarn"]) else {
        return;
    };
    let raw = Site::new();
    lab.land("day", &raw.path("flow/landing"));
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site.yaml");
    let key = folder.path().join("pool.pem");
    fs::write(&key, klieg_stdout(&["emit", "pool-key"])).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let warehouse = lab.warehouse("day").replace("warehouse=", "warehouse: ");
    let settings = settings.replace("@KEY@", &key.display().to_string());
    fs::write(&site, format!("{SITE}{warehouse}\n{settings}")).unwrap();
    let work = folder.path().join("work");
    run(&lab, &site, &work, &[]);
    let wanted = on_hdfs(&lab);
    assert!(wanted.len() > 20, "{wanted:?}");
    let start = start(folder.path(), &site, more);
    let application = Application::start(&lab, folder.path(), &start);
    let told = run(
        &lab,
        &site,
        &work,
        &["--cluster", "p", "--min-workers", "2", "--pool-wait", "90s"],
    );
    assert!(told.contains("2 workers, 2 slots"), "{told}");
    assert_eq!(on_hdfs(&lab), wanted, "{told}");
    drop(application);
    wait_for("the end of all containers", || {
        let mut workers = Command::new("pgrep");
        workers.args(["-f", "klieg worker --pool p --config site.yaml"]);
        workers.output().unwrap().stdout.is_empty()
    });
    if mode == "secure" {
        pool_file_of_another(&lab, folder.path());
    }
}

/// Where the pool file carries the key of the run, a worker believes that of its own user alone.
fn pool_file_of_another(lab: &Lab, folder: &Path) {
    let forged = folder.join("p.json");
    fs::write(&forged, "{}").unwrap();
    let from = forged.display().to_string();
    let private = "-Dfs.permissions.umask-mode=077";
    lab.sh(&["fs", private, "-put", &from, "/user/spot/day/.klieg/pools"]);
    let mut command = lab.command();
    command.args(["worker", "--pool", "p", "--slots", "1", "-D"]);
    command.args([&lab.warehouse("day"), "-D"]);
    command.arg(format!("work_dir={}", folder.join("careful").display()));
    let worker = Worker::start(&mut command, folder.join("careful.log"));
    worker.wait_told("belongs to user hdfs, this is user spot");
}

#[test]
fn workers_in_containers_of_yarn() {
    let user = "export HADOOP_USER_NAME=spot";
    workers_in_containers("simple", "pool: {secret: @KEY@}\n", user);
}

/// Containers have delegation tokens, and the pool file carries the key of the run.
#[test]
fn workers_in_containers_of_a_secure_yarn() {
    workers_in_containers("secure", "", "");
}
