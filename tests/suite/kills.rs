//! What Spark reads through Hive's metastore while runs are killed: the old rows or the new, on HDFS and on this machine, in both layouts.

use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use crate::run::Warehouse;
use crate::support::lab::Lab;
use crate::support::lab::add_run;

pub(crate) const DAY: &str = "2016-07-08";
pub(crate) const INGEST: [&str; 4] = ["--date", DAY, "--steps", "ingest"];
const LANDING: &str = "flow/landing";
/// A raw file of noon under another name: its flows are there twice.
const TWICE: &str = "twice.nfcapd";

/// A warehouse, its tables in the metastore of the lab, and how they are published.
pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Lab,
    /// A folder of this machine that is the warehouse, or has what lands on HDFS.
    local: Warehouse,
    is_local: bool,
    name: &'static str,
    settings: Vec<String>,
}

impl<'a> Site<'a> {
    /// Makes a warehouse with a day that has landed, and its tables.
    pub(crate) fn new(lab: &'a Lab, name: &'static str, is_local: bool, layout: &str) -> Self {
        let local = Warehouse::with_days(&[DAY], 6_000);
        if !is_local {
            lab.land(name, &local.path(LANDING));
        }
        let warehouse = match is_local {
            true => format!("warehouse={}", local.path("").display()),
            false => lab.warehouse(name),
        };
        let settings = [
            warehouse,
            "catalog.kind=metastore".to_owned(),
            format!("catalog.database={name}"),
            format!("layout={layout}"),
        ];
        let site = Self {
            lab,
            local,
            is_local,
            name,
            settings: settings.to_vec(),
        };
        let (code, told) = site.ask(&["setup"]);
        assert_eq!(code, Some(0), "{told}");
        site
    }

    /// The same warehouse by other settings.
    pub(crate) fn set(&mut self, setting: &str) {
        let key = setting.split_once('=').unwrap().0;
        for other in &mut self.settings {
            if other.starts_with(&format!("{key}=")) {
                setting.clone_into(other);
            }
        }
    }

    pub(crate) fn ask(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = self.lab.command();
        command.args(args);
        for setting in &self.settings {
            command.args(["-D", setting]);
        }
        text(&command.output().unwrap())
    }

    /// Adds the arguments of a run.
    pub(crate) fn add_run<'b>(&self, command: &'b mut Command, args: &[&str]) -> &'b mut Command {
        let mut all = args.to_vec();
        for setting in &self.settings[1..] {
            all.extend(["-D", setting]);
        }
        add_run(command, &self.settings[0], &all)
    }

    pub(crate) fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = self.lab.command();
        text(&self.add_run(&mut command, args).output().unwrap())
    }

    #[track_caller]
    pub(crate) fn run_ok(&self, args: &[&str]) -> String {
        let (code, told) = self.run(args);
        assert_eq!(code, Some(0), "{told}");
        told
    }

    /// Rows of a table that Spark finds on the day.
    pub(crate) fn count(&self, table: &str) -> u64 {
        let question = format!(
            "SELECT count(*) AS n FROM {}.{table} WHERE y=2016 AND m=7 AND d=8",
            self.name
        );
        self.lab.spark(&[question])[0]["n"].as_u64().unwrap()
    }

    /// One raw file more lands.
    pub(crate) fn land_more(&self) {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.local.path(LANDING).join(DAY))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|path| path.file_name().unwrap() != TWICE);
        files.sort();
        let noon = &files[files.len() / 2];
        if self.is_local {
            std::fs::copy(noon, self.local.path(LANDING).join(TWICE)).unwrap();
            return;
        }
        let more = self.local.path("more");
        std::fs::create_dir_all(&more).unwrap();
        std::fs::copy(noon, more.join(TWICE)).unwrap();
        self.lab.land(self.name, &more);
    }

    /// It is taken away again.
    pub(crate) fn take_back(&self) {
        if self.is_local {
            std::fs::remove_file(self.local.path(LANDING).join(TWICE)).unwrap();
            return;
        }
        let files = self
            .lab
            .files(&format!("/user/spot/{}/{LANDING}", self.name));
        let path = files.keys().find(|path| path.ends_with(TWICE)).unwrap();
        self.lab.sh(&["fs", "-rm", "-skipTrash", path]);
    }
}

pub(crate) fn text(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// What Spark reads when a run has died at a point.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    Old,
    Nothing,
    New,
}

/// Points of the step ingest, in order.
fn points(is_local: bool, layout: &str) -> Vec<(&'static str, Read)> {
    let begun = [
        ("before the journal", Read::Old),
        ("after the journal", Read::Old),
    ];
    let moved: &[_] = match (layout, is_local) {
        ("versioned", _) => &[
            ("after the version of ingest", Read::Old),
            ("after the state of versions", Read::Old),
            ("before the catalog", Read::Old),
        ],
        (_, true) => &[("after the exchange of ingest", Read::New)],
        (_, false) => &[("between the renames of ingest", Read::Nothing)],
    };
    let told = [
        ("after the catalog", Read::New),
        ("after the journal is removed", Read::New),
    ];
    [&begun, moved, &told].concat()
}

fn old_or_new_wherever_it_dies(site: &Site<'_>, points: &[(&str, Read)]) {
    let all_again = [&INGEST[..], &["--reprocess", "all"]].concat();
    site.run_ok(&INGEST);
    let fewer = site.count("flow");
    site.land_more();
    site.run_ok(&INGEST);
    let more = site.count("flow");
    assert!(more > fewer && fewer > 0);
    let (mut old, mut new) = (more, fewer);
    for (point, read) in points {
        match new == more {
            true => site.land_more(),
            false => site.take_back(),
        }
        let mut command = site.lab.command();
        command.env("KLIEG_KILL_AT", point);
        let killed = site.add_run(&mut command, &all_again).output().unwrap();
        let name = site.name;
        assert_eq!(killed.status.code(), None, "{name}: {point}");
        let wanted = match read {
            Read::Old => old,
            Read::Nothing => 0,
            Read::New => new,
        };
        assert_eq!(site.count("flow"), wanted, "{name}: {point}");
        site.run_ok(&all_again);
        assert_eq!(site.count("flow"), new, "{name}: {point}: repaired");
        (old, new) = (new, old);
    }
}

#[test]
fn spark_reads_the_old_or_the_new_wherever_a_run_dies() {
    let Some(lab) = Lab::up(&["simple", "--hms"]) else {
        return;
    };
    for (name, is_local, layout) in [
        ("hdfs_canonical", false, "canonical"),
        ("hdfs_versioned", false, "versioned"),
        ("file_canonical", true, "canonical"),
        ("file_versioned", true, "versioned"),
    ] {
        let site = Site::new(&lab, name, is_local, layout);
        old_or_new_wherever_it_dies(&site, &points(is_local, layout));
    }
}
