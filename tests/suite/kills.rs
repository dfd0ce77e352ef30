//! What Spark reads when runs are killed at every step of a publication: the old rows or the new, on HDFS and on this machine, through
//! Hive's metastore in both layouts and by path.

use std::fmt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::lab::Lab;
use crate::support::lab::add_run;
use crate::support::warn;

pub(crate) const DAY: &str = "2016-07-08";
pub(crate) const INGEST: [&str; 4] = ["--date", DAY, "--steps", "ingest"];
pub(crate) const AGAIN: [&str; 6] = ["--date", DAY, "--steps", "ingest", "--reprocess", "all"];
const LANDING: &str = "flow/landing";
/// The raw file that lands late.
const TWICE: &str = "twice.nfcapd";
/// Where it waits; no run reads it.
const HIDDEN: &str = ".twice.nfcapd";

/// Where a warehouse lies and how it is published.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Of the warehouse and of its database.
    pub(crate) name: &'static str,
    pub(crate) is_local: bool,
    pub(crate) layout: &'static str,
    /// By path where nobody is told.
    pub(crate) catalog: &'static str,
    /// End of the name of the raw file that lands late.
    pub(crate) late: &'static str,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_local { "file" } else { "HDFS" };
        write!(
            f,
            "{place}, layout {}, catalog {}",
            self.layout, self.catalog
        )
    }
}

/// A warehouse, and its tables in the metastore of the lab.
pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Lab,
    /// A folder of this machine that is the warehouse, or has what lands on HDFS.
    local: Warehouse,
    pub(crate) how: How,
    settings: Vec<String>,
}

impl<'a> Site<'a> {
    /// Makes a warehouse with a day that has landed, and its tables.
    pub(crate) fn new(lab: &'a Lab, how: How) -> Self {
        let How {
            name,
            is_local,
            layout,
            catalog,
            late,
        } = how;
        let local = Warehouse::with_days(&[DAY], 6_000);
        keep_noon(&local.path(LANDING), late);
        if !is_local {
            lab.land(name, &local.path(LANDING));
        }
        let warehouse = match is_local {
            true => format!("warehouse={}", local.path("").display()),
            false => lab.warehouse(name),
        };
        let settings = [
            warehouse,
            format!("catalog.kind={catalog}"),
            format!("catalog.database={name}"),
            format!("layout={layout}"),
        ];
        let site = Self {
            lab,
            local,
            how,
            settings: settings.to_vec(),
        };
        if catalog == "metastore" {
            let (code, told) = site.ask(&["setup"]);
            assert_eq!(code, Some(0), "{told}");
        }
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
        text(&self.add_settings(command.args(args)).output().unwrap())
    }

    /// Adds the settings of the site.
    pub(crate) fn add_settings<'b>(&self, command: &'b mut Command) -> &'b mut Command {
        for setting in &self.settings {
            command.args(["-D", setting]);
        }
        command
    }

    /// The name of the newest run.
    pub(crate) fn newest(&self) -> String {
        let (_, told) = self.ask(&["history", "--output", "json"]);
        let records: Value = serde_json::from_str(&told).unwrap();
        records[0]["run"].as_str().unwrap().to_owned()
    }

    /// A run that freezes at a point.
    pub(crate) fn freeze(&self, args: &[&str], point: &str) -> Child {
        let mut command = self.lab.command();
        command.env("KLIEG_STOP_AT", point);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = self.add_run(&mut command, args).spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        let is_stopped = || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        while !is_stopped() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        child
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
    pub(crate) fn count(&self, table: &'static str) -> u64 {
        self.counts(&[table])[0]
    }

    /// Rows of a table that Spark finds on a day of the month, through the metastore.
    pub(crate) fn count_on(&self, table: &str, day: u32) -> u64 {
        let name = self.how.name;
        let question =
            format!("SELECT count(*) AS n FROM {name}.{table} WHERE y=2016 AND m=7 AND d={day}");
        self.lab.spark(&[question])[0]["n"].as_u64().unwrap()
    }

    /// Rows of each table; none where its folder is missing.
    fn counts(&self, tables: &[&'static str]) -> Vec<u64> {
        let questions: Vec<_> = tables.iter().map(|table| self.question(table)).collect();
        let answers = self.lab.spark_or_error(&questions);
        let count = |answer: &Value| match answer["error"].as_str() {
            None => answer["n"].as_u64().unwrap(),
            Some(error) if error.contains("PATH_NOT_FOUND") => 0,
            Some(error) => panic!("{error}"),
        };
        answers.iter().map(count).collect()
    }

    fn question(&self, table: &str) -> String {
        let How { name, catalog, .. } = self.how;
        if catalog == "metastore" {
            return format!(
                "SELECT count(*) AS n FROM {name}.{table} WHERE y=2016 AND m=7 AND d=8"
            );
        }
        let folder = match table {
            "flow" => "",
            "flow_scores" => "/oa/suspicious",
            _ => "/oa/groups",
        };
        let root = self.settings[0].strip_prefix("warehouse=").unwrap();
        let scheme = if self.how.is_local { "file://" } else { "" };
        format!(
            "SELECT count(*) AS n FROM parquet.`{scheme}{root}/flow/hive{folder}/y=2016/m=7/d=8`"
        )
    }

    /// One raw file more lands.
    pub(crate) fn land_more(&self) {
        self.rename_raw(HIDDEN, TWICE);
    }

    /// A raw file of this machine lands with a time in its name.
    pub(crate) fn land_as(&self, file: &Path, time: &str) {
        // Hadoop copies the folder with its name, and no run reads hidden ones.
        let folder = tempfile::Builder::new().prefix("late").tempdir().unwrap();
        std::fs::copy(file, folder.path().join(format!("nfcapd.{time}"))).unwrap();
        self.lab.land(self.how.name, folder.path());
    }

    /// It is taken away again.
    pub(crate) fn take_back(&self) {
        self.rename_raw(TWICE, HIDDEN);
    }

    /// Renames a raw file, where it is there.
    fn rename_raw(&self, from: &str, to: &str) {
        if self.how.is_local {
            let landing = self.local.path(LANDING);
            drop(std::fs::rename(landing.join(from), landing.join(to)));
        } else {
            // Hadoop copies the folder into the one that is there.
            let landing = format!("/user/spot/{}/{LANDING}/landing", self.how.name);
            self.lab
                .rename(&format!("{landing}/{from}"), &format!("{landing}/{to}"));
        }
    }
}

/// An hour is enough; another file waits to land.
fn keep_noon(landing: &Path, late: &str) {
    for entry in std::fs::read_dir(landing.join(DAY)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap();
        if name.ends_with(late) {
            std::fs::copy(&path, landing.join(HIDDEN)).unwrap();
        }
        if !name.contains("2016070812") {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

fn text(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Wakes a run that froze, and waits for its end.
pub(crate) fn wake(frozen: Child) -> (Option<i32>, String) {
    let pid = frozen.id().to_string();
    let woken = Command::new("kill").args(["-CONT", &pid]).status();
    assert!(woken.unwrap().success());
    text(&frozen.wait_with_output().unwrap())
}

/// What Spark reads of a table when a run has died at a point.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    Old,
    Nothing,
    New,
}

/// A point, and what Spark reads of each table of the step when a run has died there.
type Point = (String, Vec<Read>);

/// A step that is killed.
struct Step {
    name: &'static str,
    tables: &'static [&'static str],
    /// Names of its folders, in their order; those that are partitions are read by Spark.
    folders: &'static [&'static str],
}

const STEPS: [Step; 2] = [
    Step {
        name: "ingest",
        tables: &["flow"],
        folders: &["ingest"],
    },
    Step {
        name: "suspicious",
        tables: &["flow_scores", "flow_groups"],
        folders: &["scores", "flow_scores", "flow_groups", "model"],
    },
];

impl Step {
    /// The index of the table that is in a folder.
    fn table_in(&self, folder: &str) -> Option<usize> {
        let table = match folder {
            "ingest" => "flow",
            other => other,
        };
        self.tables.iter().position(|own| *own == table)
    }

    /// Every point of its publication, in order.
    fn points(&self, how: &How) -> Vec<Point> {
        let mut reads = vec![Read::Old; self.tables.len()];
        let mut points: Vec<Point> = Vec::new();
        let mut add = |point: &str, reads: &[Read]| points.push((point.to_owned(), reads.to_vec()));
        for point in BEGUN {
            add(point, &reads);
        }
        let is_versioned =
            |folder: &&str| how.layout == "versioned" && self.table_in(folder).is_some();
        let (switched, swapped): (Vec<&str>, Vec<&str>) =
            self.folders.iter().partition(|folder| is_versioned(folder));
        for (index, folder) in swapped.iter().enumerate() {
            let table = self.table_in(folder);
            let changes = match how.is_local {
                true => ("after the exchange of", Read::New),
                false => ("between the renames of", Read::Nothing),
            };
            if let Some(table) = table {
                reads[table] = changes.1;
            }
            add(&format!("{} {folder}", changes.0), &reads);
            if let Some(table) = table {
                reads[table] = Read::New;
            }
            add(&format!("after folder {index}"), &reads);
        }
        for folder in &switched {
            add(&format!("after the version of {folder}"), &reads);
        }
        if !switched.is_empty() {
            add("after the state of versions", &reads);
        }
        add("before the catalog", &reads);
        reads.fill(Read::New);
        for point in TOLD {
            add(point, &reads);
        }
        points
    }
}

const BEGUN: [&str; 6] = [
    "after staging is made",
    "after staging",
    "before the fence",
    "before the journal",
    "before a name in journal",
    "after the journal",
];
const TOLD: [&str; 4] = [
    "after the catalog",
    "after _SUCCESS",
    "after the record",
    "after the journal is removed",
];

/// Publishes one of two versions of a step, which have other numbers of rows, and may die.
fn publish(site: &Site<'_>, step: &Step, version: usize, kill_at: Option<&str>) -> Output {
    let mut command = site.lab.command();
    command.envs(kill_at.map(|point| ("KLIEG_KILL_AT", point)));
    let mut args = vec!["--date", DAY, "--steps", step.name, "--reprocess", "all"];
    match (step.name, version) {
        ("ingest", 0) => site.take_back(),
        ("ingest", _) => site.land_more(),
        (_, 0) => args.extend([
            "-D",
            "suspicious.groups=50",
            "-D",
            "suspicious.max_results=90",
        ]),
        _ => args.extend([
            "-D",
            "suspicious.groups=60",
            "-D",
            "suspicious.max_results=80",
        ]),
    }
    site.add_run(&mut command, &args).output().unwrap()
}

fn old_or_new_wherever_it_dies(site: &Site<'_>, step: &Step) {
    let rows = [0, 1].map(|version| {
        let (code, told) = text(&publish(site, step, version, None));
        assert_eq!(code, Some(0), "{told}");
        site.counts(step.tables)
    });
    for (one, other) in rows[0].iter().zip(&rows[1]) {
        assert!(one != other && *one > 0 && *other > 0, "{rows:?}");
    }
    let points = step.points(&site.how);
    for (index, (point, reads)) in points.iter().enumerate() {
        let (old, new) = (&rows[(index + 1) % 2], &rows[index % 2]);
        let what = format!("{}, {} killed {point}", site.how, step.name);
        let killed = publish(site, step, index % 2, Some(point));
        assert_eq!(killed.status.code(), None, "{what}: it did not die");
        let wanted = reads.iter().enumerate().map(|(table, read)| match read {
            Read::Old => old[table],
            Read::Nothing => 0,
            Read::New => new[table],
        });
        assert_eq!(
            site.counts(step.tables),
            wanted.collect::<Vec<_>>(),
            "{what}"
        );
        let (code, told) = text(&publish(site, step, index % 2, None));
        assert_eq!(code, Some(0), "{what}: {told}");
        assert_eq!(site.counts(step.tables), *new, "{what}: repaired");
    }
    warn(&format!(
        "{}: {} killed at {} points",
        site.how,
        step.name,
        points.len()
    ));
}

/// The hole of the canonical layout on HDFS is measured and told; no other has one.
fn the_hole_is_told(site: &Site<'_>) {
    let told = site.run_ok(&[&INGEST[..], &["--reprocess", "all"]].concat());
    let hole = told.split_once("; readers found nothing for ");
    let has_hole = !site.how.is_local && site.how.layout == "canonical";
    assert_eq!(hole.is_some(), has_hole, "{told}");
    if let Some((_, rest)) = hole {
        let ms = rest.split_once(" ms").unwrap().0;
        assert!(ms.parse::<f64>().unwrap() > 0.0);
        warn(&format!("{}: readers found nothing for {ms} ms", site.how));
    }
}

/// The step suspicious has every point of a publication. The step ingest has partitions below its folder, of which the metastore knows.
fn spark_reads_the_old_or_the_new(is_local: bool) {
    let Some(lab) = Lab::up(&["simple", "--hms"]) else {
        return;
    };
    for (name, layout, catalog) in [
        ("canonical", "canonical", "metastore"),
        ("versioned", "versioned", "metastore"),
        ("alone", "canonical", "none"),
    ] {
        let how = How {
            name,
            is_local,
            layout,
            catalog,
            // An hour that the day has in one of two versions.
            late: "1430",
        };
        let site = Site::new(&lab, how);
        site.run_ok(&INGEST);
        for step in STEPS
            .iter()
            .filter(|step| step.name != "ingest" || catalog != "none")
        {
            old_or_new_wherever_it_dies(&site, step);
        }
        the_hole_is_told(&site);
    }
}

#[test]
fn spark_reads_the_old_or_the_new_wherever_a_run_dies_on_hdfs() {
    spark_reads_the_old_or_the_new(false);
}

#[test]
fn spark_reads_the_old_or_the_new_wherever_a_run_dies_on_this_machine() {
    spark_reads_the_old_or_the_new(true);
}
