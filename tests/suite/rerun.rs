//! Ranges of days: which are done, in which order, what one failure does, and what is told about it later.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::copy_klieg;
use crate::support::klieg;

const DAYS: [&str; 3] = ["2016-07-08", "2016-07-09", "2016-07-10"];
const RANGE: [&str; 4] = ["--from", "2016-07-08", "--to", "2016-07-10"];
const INGEST: [&str; 2] = ["--steps", "ingest"];

fn ask(warehouse: &Warehouse, args: &[&str]) -> (Option<i32>, String) {
    let root = format!("warehouse={}", warehouse.path("").display());
    let output = klieg(&[args, &["-D", &root]].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

fn statuses(result: &Value) -> Vec<(String, String)> {
    let days = result["days"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    days.map(|day| (text(&day["day"]), text(&day["status"])))
        .collect()
}

fn json(warehouse: &Warehouse, args: &[&str]) -> Value {
    let output = warehouse.run(&[&["--output", "json"], args].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Three days of raw files, of which the second has one that is junk; nothing is read twice, since its name is near noon.
fn with_junk() -> (Warehouse, std::path::PathBuf) {
    let warehouse = Warehouse::with_days(&DAYS, 6_000);
    let junk = warehouse.path("flow/landing/nfcapd.201607091200");
    std::fs::write(&junk, vec![7; 1 << 20]).unwrap();
    let output = warehouse.run(&[&RANGE[..], &INGEST].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("klieg: 2016-07-09: ingest:"), "{stderr}");
    (warehouse, junk)
}

#[test]
fn a_failed_day_is_told() {
    let (warehouse, _) = with_junk();
    let (code, status) = ask(&warehouse, &["status"]);
    assert_eq!(code, Some(1), "{status}");
    assert!(
        status.contains("2 days published") && status.contains("failed     2016-07-09, run "),
        "{status}"
    );
    let (code, history) = ask(&warehouse, &["history", "--output", "json"]);
    assert_eq!(code, Some(0), "{history}");
    let records: Vec<Value> = serde_json::from_str(&history).unwrap();
    let status_of = |day: &str| {
        let record = records.iter().find(|record| record["day"] == day).unwrap();
        record["status"].as_str().unwrap()
    };
    assert_eq!(DAYS.map(status_of), ["published", "failed", "published"]);
    assert!(records[0]["input_bytes"].as_u64().unwrap() > 0);
    let run = records[0]["run"].as_str().unwrap();
    let (code, shown) = ask(&warehouse, &["show", run]);
    assert_eq!(code, Some(0), "{shown}");
    for part in [
        "flow 2016-07-08  published",
        "flow 2016-07-09  failed",
        "error     ingest:",
        "kept",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn only_days_that_are_asked_for_are_done_again() {
    let (warehouse, junk) = with_junk();
    let reprocess = |which: &str| {
        let args = [&RANGE[..], &INGEST, &["--reprocess", which]].concat();
        statuses(&json(&warehouse, &args))
    };
    let ended = |status: [&str; 3]| -> Vec<(String, String)> {
        let pairs = DAYS.iter().zip(status);
        pairs
            .map(|(day, status)| ((*day).to_owned(), status.to_owned()))
            .collect()
    };
    assert_eq!(
        reprocess("missing"),
        ended(["skipped", "failed", "skipped"])
    );
    std::fs::remove_file(&junk).unwrap();
    assert_eq!(reprocess("failed"), ended(["skipped", "ok", "skipped"]));
    assert_eq!(reprocess("failed"), ended(["skipped"; 3]));
    assert_eq!(reprocess("missing"), ended(["skipped"; 3]));
    assert_eq!(ask(&warehouse, &["status"]).0, Some(0));
    let plan = |more: &[&str]| {
        let args = [&["plan", "jobs/flow.yaml"], &RANGE[..], &INGEST, more].concat();
        ask(&warehouse, &args).1
    };
    let text = plan(&[]);
    assert_eq!(text.matches("skip: up to date").count(), 3, "{text}");
    let text = plan(&["--reprocess", "all"]);
    assert_eq!(
        text.matches("replace: all are reprocessed").count(),
        3,
        "{text}"
    );
    assert_eq!(text.matches("expects ").count(), 3, "{text}");
}

#[test]
fn ranges_go_backwards_beside_each_other_and_stop() {
    let warehouse = Warehouse::with_days(&DAYS, 6_000);
    let result = json(&warehouse, &RANGE);
    let before = warehouse.published();
    let order: Vec<_> = statuses(&result).into_iter().map(|(day, _)| day).collect();
    assert_eq!(order, DAYS);

    let backwards = ["--backwards", "--parallel", "3", "--reprocess", "all"];
    let result = json(&warehouse, &[&RANGE[..], &backwards].concat());
    let mut order: Vec<_> = statuses(&result).into_iter().map(|(day, _)| day).collect();
    order.reverse();
    assert_eq!(order, DAYS);
    assert!(before == warehouse.published());

    let wide = [
        "--from",
        "2016-07-01",
        "--to",
        "2016-07-08",
        "--max-failures",
        "2",
    ];
    let output = warehouse.run(&[&["--output", "json"], &wide[..]].concat());
    // Both days that were begun have no raw file.
    assert_eq!(output.status.code(), Some(3));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ends: Vec<_> = statuses(&result)
        .into_iter()
        .map(|(_, status)| status)
        .collect();
    assert_eq!(ends[..3], ["failed", "failed", "skipped"]);
    assert!(before == warehouse.published());
}

/// Days and spans of a range of five, in orders of every kind, with repeats.
const ORDERS: [&[(usize, usize)]; 4] = [
    &[(4, 4), (2, 2), (0, 0), (3, 3), (1, 1), (2, 2), (0, 0)],
    &[(1, 3), (0, 4), (2, 4), (0, 0)],
    &[(3, 4), (3, 3), (0, 1), (1, 2), (0, 4), (4, 4)],
    &[(2, 2), (2, 2), (4, 4), (1, 1), (0, 3), (0, 4), (0, 4)],
];

/// Published files; their names differ from warehouse to warehouse in a tag.
fn untagged(warehouse: &Warehouse) -> BTreeMap<String, Vec<u8>> {
    let files = warehouse.published().into_iter();
    let files = files.map(|(name, bytes)| match name.split_once("/part-") {
        Some((folder, file)) => (format!("{folder}/{}", &file[..5]), bytes),
        None => (name, bytes),
    });
    files.collect()
}

#[test]
fn any_order_of_five_days_with_repeats_makes_the_same_tables() {
    let days: Vec<String> = (8..13).map(|day| format!("2016-07-{day:02}")).collect();
    let names: Vec<&str> = days.iter().map(String::as_str).collect();
    let wanted = Warehouse::with_days(&names, 3_000);
    let none = ["-D", "suspicious.model=none"];
    wanted.run_ok(&[&["--from", names[0], "--to", names[4]], &none[..]].concat());
    let wanted = untagged(&wanted);
    let tables: Vec<_> = wanted.keys().filter(|path| path.contains("/h=")).collect();
    assert_eq!(tables.len(), 5 * 24);
    for (number, order) in ORDERS.iter().enumerate() {
        let warehouse = Warehouse::with_days(&names, 3_000);
        for (step, (first, last)) in order.iter().enumerate() {
            let span = ["--from", names[*first], "--to", names[*last]];
            let how: &[&str] = match (number + step) % 3 {
                0 => &[],
                1 => &["--reprocess", "all", "--parallel", "2"],
                _ => &["--backwards"],
            };
            warehouse.run_ok(&[&span[..], how, &none].concat());
        }
        let made = untagged(&warehouse);
        let differs = |path: &&String| made.get(*path) != wanted.get(*path);
        let different: Vec<_> = wanted.keys().chain(made.keys()).filter(differs).collect();
        assert!(different.is_empty(), "order {number}: {different:?}");
    }
}

#[test]
fn every_answer_has_a_form_for_programs() {
    let warehouse = Warehouse::with_days(&DAYS[..1], 6_000);
    let run = json(&warehouse, &["--date", DAYS[0], "--steps", "ingest"]);
    let run = run["run_id"].as_str().unwrap();
    for question in [
        &["status"][..],
        &["history"],
        &["show", run],
        &["plan", "jobs/flow.yaml", "--date", DAYS[0]],
        &["rollback", "flow/2016-07-08", "--to", run],
        &["recover"],
        &["gc"],
        &["unlock", "flow/2016-07-08"],
        &["doctor"],
    ] {
        let (code, told) = ask(&warehouse, &[question, &["--output", "json"]].concat());
        assert_eq!(code, Some(0), "{question:?}: {told}");
        assert!(
            serde_json::from_str::<Value>(&told).is_ok(),
            "{question:?}: {told}"
        );
    }
}

#[test]
fn questions_about_nothing_are_answered() {
    let warehouse = Warehouse::empty();
    let (code, status) = ask(&warehouse, &["status"]);
    assert_eq!(
        (code, status.as_str()),
        (Some(0), "flow       0 days published, 0 rows\n")
    );
    let (code, history) = ask(&warehouse, &["history"]);
    assert_eq!((code, history.lines().count()), (Some(0), 1));
    for run in ["20160708T010203Z-00000000", "../locks", ""] {
        let (code, text) = ask(&warehouse, &["show", run]);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("no report of a run"), "{text}");
    }
}

#[test]
fn a_wrong_warehouse_is_told_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("warehouse={}/nope", folder.path().display());
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let date = ["--date", "2016-07-08", "-D", &root];
    for command in [
        &["run", job][..],
        &["plan", job],
        &["top", "flow"],
        &["status"],
        &["history"],
    ] {
        let site = if command.len() > 1 {
            &date[..]
        } else {
            &date[2..]
        };
        let output = klieg(&[command, site].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{command:?}: {stderr}");
        assert!(
            stderr.contains("nope") && stderr.contains("is the warehouse right"),
            "{stderr}"
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Runs klieg as a user who is not the superuser, where the tests are.
fn as_nobody(args: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("klieg");
    copy_klieg(&program, "");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    if folder.path().metadata().unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let output = command.args(args).current_dir("/").output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

#[test]
fn what_is_not_for_this_user_is_exit_5() {
    let warehouse = Warehouse::with_days(&DAYS[..1], 6_000);
    assert!(
        warehouse
            .run(&["--date", DAYS[0], "--steps", "ingest"])
            .status
            .success()
    );
    let root = warehouse.path("");
    let job = root.join("job.yaml");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml"), &job).unwrap();
    let site = format!("warehouse={}", root.display());
    let (job, out) = (
        job.to_str().unwrap(),
        root.join("out").display().to_string(),
    );
    let date = ["--date", DAYS[0], "-D", &site];
    let is_denied = |args: &[&str]| {
        let (code, text) = as_nobody(args);
        assert_eq!(code, Some(5), "{args:?}: {text}");
        assert!(text.contains("Permission denied"), "{text}");
    };
    std::fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    is_denied(&[&["run", job, "--reprocess", "all"], &date[..]].concat());
    // To look is enough for a plan.
    let (code, plan) = as_nobody(&[&["plan", job], &date[..]].concat());
    assert_eq!(code, Some(0), "{plan}");
    is_denied(&["synth", "--date", DAYS[0], "--flows", "1", "--out", &out]);
    let landing = warehouse.path("flow/landing");
    std::fs::set_permissions(&landing, Permissions::from_mode(0o000)).unwrap();
    is_denied(&[&["plan", job], &date[..]].concat());
    std::fs::set_permissions(&landing, Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&root, Permissions::from_mode(0o000)).unwrap();
    is_denied(&[&["top", "flow"], &date[..]].concat());
    is_denied(&["status", "-D", &site]);
    is_denied(&["check", job]);
    std::fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
}
