//! Publishing while processes die: readers see the old or the new, and the next run repairs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::klieg;
use crate::support::lab::Lab;
use crate::support::lab::run_in;

const DAY: &str = "2016-07-08";

/// Every point at which a publication of the step ingest can die, in order.
const INGEST_POINTS: [&str; 10] = [
    "after staging is made",
    "after staging",
    "before the fence",
    "before the journal",
    "before a name in journal",
    "after the journal",
    "after folder 0",
    "after the catalog",
    "after _SUCCESS",
    "after the journal is removed",
];

/// Those of the step suspicious, which publishes four folders.
const SUSPICIOUS_POINTS: [&str; 11] = [
    "after staging",
    "before the journal",
    "after the journal",
    "between the renames of scores",
    "after folder 0",
    "between the renames of flow_scores",
    "after folder 1",
    "between the renames of flow_groups",
    "after folder 2",
    "after folder 3",
    "after the journal is removed",
];

/// Folders that readers take as one.
const FOLDERS: [&str; 5] = [
    "flow/hive/y=2016/m=7/d=8",
    "flow/scored_results/20160708/scores",
    "flow/hive/oa/suspicious/y=2016/m=7/d=8",
    "flow/hive/oa/groups/y=2016/m=7/d=8",
    "flow/model/20160708",
];

type Files = BTreeMap<String, u64>;

/// A warehouse that is looked at from outside.
trait Site {
    fn run(&self, args: &[&str], kill_at: Option<&str>) -> Output;
    fn files(&self, folder: &str) -> Files;
    /// True where a folder may be missing for an instant.
    fn has_hole(&self) -> bool;
    fn name(&self) -> String;
}

struct LocalSite(Warehouse);

impl Site for LocalSite {
    fn run(&self, args: &[&str], kill_at: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klieg"));
        command.envs(kill_at.map(|point| ("KLIEG_KILL_AT", point)));
        let warehouse = format!("warehouse={}", self.0.path("").display());
        run_in(&mut command, &warehouse, args)
    }

    fn files(&self, folder: &str) -> Files {
        let mut files = Files::new();
        collect(&self.0.path(folder), &mut files);
        files
    }

    fn has_hole(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        "file".to_owned()
    }
}

fn collect(folder: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let bytes = path.metadata().unwrap().len();
            files.insert(path.display().to_string(), bytes);
        }
    }
}

struct HdfsSite<'a>(&'a Lab, &'static str);

impl Site for HdfsSite<'_> {
    fn run(&self, args: &[&str], kill_at: Option<&str>) -> Output {
        let mut command = self.0.command();
        command.envs(kill_at.map(|point| ("KLIEG_KILL_AT", point)));
        run_in(&mut command, &self.0.warehouse(self.1), args)
    }

    fn files(&self, folder: &str) -> Files {
        self.0.files(&format!("/user/spot/{}/{folder}", self.1))
    }

    fn has_hole(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        "HDFS".to_owned()
    }
}

#[track_caller]
fn assert_ok(output: &Output, what: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {stderr}");
}

/// What readers find in each folder; the result tables are not in the folder of the raw table.
fn look(site: &dyn Site) -> Vec<Files> {
    let data = |folder: &&str| {
        let mut files = site.files(folder);
        // Whether a scheduler is told comes last.
        files.retain(|path, _| !path.ends_with("_SUCCESS"));
        files
    };
    FOLDERS.iter().map(data).collect()
}

/// Publishes two versions in turn and dies at each point on the way from one to the other.
fn die_everywhere(site: &dyn Site, step: &str, points: &[&str]) {
    // Versions differ in a setting that is part of the result.
    let versions: [&[&str]; 2] = match step {
        "ingest" => [&["-D", "ingest.slack=1h"], &["-D", "ingest.slack=2h"]],
        _ => [
            &[
                "-D",
                "suspicious.groups=50",
                "-D",
                "suspicious.max_results=90",
            ],
            &[
                "-D",
                "suspicious.groups=60",
                "-D",
                "suspicious.max_results=80",
            ],
        ],
    };
    let args = |version: &[&str]| -> Vec<String> {
        let all = [&["--date", DAY, "--steps", step], version].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let run = |version: usize, kill_at: Option<&str>| {
        let args = args(versions[version]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        site.run(&args, kill_at)
    };
    let states: Vec<Vec<Files>> = (0..2)
        .map(|version| {
            assert_ok(&run(version, None), "without a kill");
            look(site)
        })
        .collect();
    assert_ne!(states[0], states[1], "the versions differ");
    for (index, point) in points.iter().enumerate() {
        let (old, new) = ((index + 1) % 2, index % 2);
        let what = format!("{} killed {point}", site.name());
        let output = run(new, Some(point));
        assert_eq!(output.status.code(), None, "{what}: it did not die");
        for (folder, found) in look(site).into_iter().enumerate() {
            let is_whole = found == states[old][folder] || found == states[new][folder];
            let is_hole = found.is_empty() && site.has_hole() && point.contains("between");
            assert!(is_whole || is_hole, "{what}: {found:?}");
        }
        assert_ok(&run(new, None), &what);
        assert_eq!(look(site), states[new], "{what}: repaired");
        for area in ["runs", "journal"] {
            let left = site.files(&format!(".klieg/{area}"));
            assert!(left.is_empty(), "{what}: {left:?}");
        }
        for folder in FOLDERS {
            let files = site.files(folder);
            assert!(files.keys().any(|path| path.ends_with("_SUCCESS")) || files.is_empty());
        }
    }
}

#[test]
fn a_run_that_is_killed_anywhere_leaves_the_old_or_the_new() {
    let site = LocalSite(Warehouse::with_days(&[DAY], 6_000));
    let mut points = INGEST_POINTS.to_vec();
    points.push("after the exchange of ingest");
    die_everywhere(&site, "ingest", &points);
    let points =
        SUSPICIOUS_POINTS.map(|point| point.replace("between the renames", "after the exchange"));
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    die_everywhere(&site, "suspicious", &points);
}

#[test]
fn a_run_that_is_killed_anywhere_on_hdfs_leaves_the_old_or_the_new() {
    let Some(lab) = Lab::up(&["simple"]) else {
        return;
    };
    let local = Warehouse::with_days(&[DAY], 6_000);
    lab.land("kill", &local.path("flow/landing"));
    let site = HdfsSite(&lab, "kill");
    let mut points = INGEST_POINTS.to_vec();
    points.push("between the renames of ingest");
    die_everywhere(&site, "ingest", &points);
    die_everywhere(&site, "suspicious", &SUSPICIOUS_POINTS);
}

/// Runs a command on a warehouse of this machine.
fn ask(warehouse: &Warehouse, args: &[&str]) -> (Option<i32>, String) {
    let root = format!("warehouse={}", warehouse.path("").display());
    let output = klieg(&[args, &["-D", &root]].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

#[test]
fn a_day_goes_back_to_any_run_that_is_kept() {
    let site = LocalSite(Warehouse::with_days(&[DAY], 6_000));
    let publish = |groups: &str, more: &[&str]| -> (String, Vec<Files>) {
        let groups = format!("suspicious.groups={groups}");
        let args = ["--date", DAY, "--output", "json", "-D", &groups];
        let output = site.run(&[&args[..], more].concat(), None);
        assert_ok(&output, "publish");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        (result["run_id"].as_str().unwrap().to_owned(), look(&site))
    };
    // The third run changes the results only: the raw table is that of the second.
    let first = publish("50", &[]);
    let second = publish("60", &["-D", "ingest.slack=2h"]);
    let third = publish("70", &["-D", "ingest.slack=2h"]);
    let back = |run: &str| ask(&site.0, &["rollback", "flow/2016-07-08", "--to", run]);
    for (run, state) in [&first, &third, &second, &first, &second, &third] {
        let (code, text) = back(run);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("put back to run"), "{text}");
        assert_eq!(look(&site), *state, "{text}");
        let (code, text) = back(run);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("is as run"), "{text}");
    }
    let (code, text) = ask(&site.0, &["history", "--date", DAY]);
    assert_eq!(
        (code, text.matches("rolledback").count()),
        (Some(0), 6),
        "{text}"
    );
    let (code, text) = back("20160708T010203Z-00000000");
    assert_eq!(code, Some(3), "{text}");

    // What is cleared cannot come back, and says so; nothing is changed.
    let (code, text) = ask(&site.0, &["gc", "--keep", "0s"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(site.files(".klieg/trash").is_empty());
    let (code, text) = back(&first.0);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("not kept any more"), "{text}");
    assert_eq!(look(&site), third.1);
}

#[test]
fn recover_finishes_what_status_shows_as_half_done() {
    let site = LocalSite(Warehouse::with_days(&[DAY], 6_000));
    let args = ["--date", DAY, "--steps", "ingest"];
    let output = site.run(&args, Some("after the journal"));
    assert_eq!(output.status.code(), None);
    let (_, text) = ask(&site.0, &["status"]);
    assert!(text.contains("half done  flow-20160708"), "{text}");
    let (code, text) = ask(&site.0, &["recover"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("flow-20160708: finished what"), "{text}");
    let (code, text) = ask(&site.0, &["recover"]);
    assert_eq!((code, text.as_str()), (Some(0), "nothing is half done\n"));
    let (code, text) = ask(&site.0, &["history", "--partition", "flow/2016-07-08"]);
    assert_eq!(
        (code, text.matches("published").count()),
        (Some(0), 1),
        "{text}"
    );
    // A journal of another version is left alone.
    let journal = site.0.path(".klieg/journal/flow-20160708/x.json");
    std::fs::write(
        &journal,
        r#"{"version":3,"run":"x","swaps":[],"switches":[],"adoptions":[]}"#,
    )
    .unwrap();
    let output = site.run(&args, None);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{stderr}");
    assert!(stderr.contains("a journal of another version"), "{stderr}");
    assert!(journal.is_file());
    let (code, text) = ask(&site.0, &["unlock", "flow/2016-07-08", "--output", "json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &told["partition"], &told["taken_from"]),
        (Some(0), &Value::from("flow/2016-07-08"), &Value::Null)
    );
    let (code, text) = ask(&site.0, &["unlock", "flow"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("write flow/2016-07-08"), "{text}");
}
