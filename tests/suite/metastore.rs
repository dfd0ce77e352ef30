//! Hive's metastore as klieg tells it, and what Spark reads while runs are killed.

use std::process::Output;
use std::process::Stdio;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;

use crate::catalog::count;
use crate::catalog::of_day;
use crate::run::Warehouse;
use crate::support::lab::Lab;

const DAY: &str = "2016-07-08";
const INGEST: [&str; 4] = ["--date", DAY, "--steps", "ingest"];
const TOLD: [&str; 4] = ["-D", "catalog.kind=metastore", "-D", "catalog.patience=3s"];

/// A lab with a day that has landed in `day` of the user spot.
fn lab(args: &[&str], variables: &[(&str, &str)]) -> Option<Lab> {
    let lab = Lab::up_with(args, variables)?;
    let local = Warehouse::with_days(&[DAY], 6_000);
    lab.land("day", &local.path("flow/landing"));
    Some(lab)
}

fn ask(lab: &Lab, args: &[&str]) -> (Option<i32>, String) {
    let mut command = lab.command();
    command
        .args(args)
        .args(["-D", &lab.warehouse("day")])
        .args(TOLD);
    text(&command.output().unwrap())
}

fn text(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn run(lab: &Lab, args: &[&str]) -> (Option<i32>, String) {
    text(&lab.run("day", &[args, &TOLD].concat()))
}

/// Runs until `point` and does something while the run stands still.
fn run_with_a_stop(
    lab: &Lab,
    args: &[&str],
    point: &str,
    meanwhile: impl FnOnce(),
) -> (Option<i32>, String) {
    let mut command = lab.command();
    command.env("KLIEG_STOP_AT", point);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    command.args([
        "run",
        job,
        "-D",
        &lab.warehouse("day"),
        "-D",
        "ingest.settle=0s",
    ]);
    command.args(args).args(TOLD);
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim().starts_with('T')
    };
    while !is_stopped() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    meanwhile();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
    text(&child.wait_with_output().unwrap())
}

fn rows(lab: &Lab, question: &str) -> Vec<Value> {
    lab.spark(&[question.to_owned()])
}

/// Rows that Spark reads, none where a folder is missing for an instant.
fn counted(lab: &Lab) -> u64 {
    rows(lab, &count("flow"))[0]["n"].as_u64().unwrap()
}

#[test]
fn spark_sees_each_publication_at_once() {
    let Some(lab) = lab(&["simple", "--hms"], &[]) else {
        return;
    };
    // No table yet: nothing is begun.
    let (code, told) = run(&lab, &["--date", DAY]);
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("spot.flow is missing in the metastore; klieg setup makes it"),
        "{told}"
    );
    let (code, told) = ask(&lab, &["setup"]);
    assert_eq!(
        (code, told.matches("made table").count()),
        (Some(0), 3),
        "{told}"
    );
    let (code, told) = ask(&lab, &["setup"]);
    assert_eq!((code, told.matches("made").count()), (Some(0), 0), "{told}");
    let (code, told) = run(&lab, &["--date", DAY, "--output", "json"]);
    assert_eq!(code, Some(0), "{told}");
    let result: Value =
        serde_json::from_str(told.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    let steps = &result["days"][0]["outcome"]["steps"];
    let questions = [
        count("flow"),
        count("flow_groups"),
        "DESCRIBE EXTENDED spot.flow_groups PARTITION (y=2016, m=7, d=8)".to_owned(),
        format!("SELECT reason {} AND rank = 1", of_day("flow_groups")),
    ];
    let found = lab.spark(&questions);
    assert_eq!(found[0]["n"], steps[0]["rows"]);
    assert_eq!(found[1]["n"], steps[1]["rows"]);
    let about: String = found.iter().map(ToString::to_string).collect();
    let run_id = result["run_id"].as_str().unwrap();
    assert!(about.contains(&format!("klieg.run_id={run_id}")), "{about}");
    assert!(
        about.contains(&format!("numRows={}", steps[1]["rows"])),
        "{about}"
    );

    // An hour alone, then half of the day: partitions of hours that are gone are dropped.
    let (code, told) = run(&lab, &["--date", "2016-07-08T12", "--steps", "ingest"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(counted_after_refresh(&lab), found[0]["n"]);
    // A new one reads it at once.
    assert_eq!(counted(&lab), found[0]["n"].as_u64().unwrap());
    let files = lab.files("/user/spot/day/flow/landing");
    let late = files.keys().filter(|path| {
        path.rsplit('.')
            .next()
            .is_some_and(|time| time >= "201607081100")
    });
    let late: Vec<&str> = late.map(String::as_str).collect();
    lab.sh(&[&["fs", "-rm", "-skipTrash"], &late[..]].concat());
    let (code, told) = run(&lab, &[&INGEST[..], &["--reprocess", "all"]].concat());
    assert_eq!(code, Some(0), "{told}");
    let partitions = rows(&lab, "SHOW PARTITIONS spot.flow");
    assert!(
        partitions.len() < 24 && partitions.len() > 8,
        "{partitions:?}"
    );
    metastore_goes_down(&lab);
    another_table_is_told(&lab);
}

/// A session that has read the day before may be told that its files are gone, and reads what there is after REFRESH; never less.
fn counted_after_refresh(lab: &Lab) -> Value {
    let old = lab.spark_again(&[&count("flow")]);
    let fresh = lab.spark_again(&["REFRESH TABLE spot.flow", &count("flow")]);
    match old[0]["error"].as_str() {
        Some(error) => assert!(error.contains("exist"), "{error}"),
        None => assert_eq!(old[0]["n"], fresh[0]["n"]),
    }
    fresh[0]["n"].clone()
}

fn metastore_goes_down(lab: &Lab) {
    let again = [&INGEST[..], &["--reprocess", "all"]].concat();
    // In the last step: what is published stays, and is told by recover.
    let (code, told) = run_with_a_stop(lab, &again, "after folder 0", || {
        drop(lab.sh(&["kill", "hms"]));
    });
    assert_eq!(code, Some(8), "{told}");
    assert!(told.contains("the publication is half done"), "{told}");
    // Before any work.
    let (code, told) = run(lab, &again);
    assert_eq!(code, Some(6), "{told}");
    assert!(!told.contains("ingest:"), "{told}");
    let (code, told) = ask(lab, &["doctor"]);
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("FAIL  metastore"), "{told}");
    // Of several the one that answers is told.
    lab.sh(&["start", "hms"]);
    let uris = format!(
        "catalog.uris=thrift://localhost:1,{}",
        lab.environment["HMS_URI"]
    );
    let (code, told) = ask(lab, &["recover", "-D", &uris]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("finished what"), "{told}");
    assert!(counted(lab) > 0);
    // One that listens and is silent.
    lab.sh(&["stop", "hms"]);
    let start = std::time::Instant::now();
    let (code, told) = run(
        lab,
        &[&again[..], &["-D", "catalog.call_timeout=1s"]].concat(),
    );
    lab.sh(&["cont", "hms"]);
    assert_eq!(code, Some(6), "{told}");
    assert!(start.elapsed() < std::time::Duration::from_secs(30));
    adopted_while_it_is_down(lab);
}

/// A day of another tool is taken as it is; the metastore is told of it in the end.
fn adopted_while_it_is_down(lab: &Lab) {
    let table = "/user/spot/day/flow/hive/y=2016/m=7";
    let (day, foreign) = (format!("{table}/d=8"), format!("{table}/d=7"));
    lab.sh(&["fs", "-cp", &day, &foreign]);
    let ours = ["_manifest.json", "_SUCCESS"].map(|name| format!("{foreign}/{name}"));
    lab.sh(&["fs", "-rm", "-skipTrash", &ours[0], &ours[1]]);
    lab.sh(&["fs", "-chown", "-R", "spot", &foreign]);
    let before = ["--date", "2016-07-07", "--steps", "ingest"];
    let (code, told) = run(lab, &before);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--adopt takes them"), "{told}");
    let adopt = [&before[..], &["--adopt"]].concat();
    let (code, told) = run_with_a_stop(lab, &adopt, "after the journal", || {
        drop(lab.sh(&["kill", "hms"]));
    });
    assert_eq!(code, Some(8), "{told}");
    lab.sh(&["start", "hms"]);
    let (code, told) = run(lab, &adopt);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("finished what run"), "{told}");
    let question = "SELECT count(*) AS n FROM spot.flow WHERE y=2016 AND m=7 AND d=7";
    assert!(rows(lab, question)[0]["n"].as_u64().unwrap() > 0);
    assert!(lab.files(&foreign).contains_key(&ours[1]));
}

fn another_table_is_told(lab: &Lab) {
    let statements = [
        "CREATE DATABASE other".to_owned(),
        format!(
            "CREATE EXTERNAL TABLE other.flow (treceived STRING, tryear STRING) PARTITIONED BY (y SMALLINT, m TINYINT, d TINYINT) STORED AS PARQUET LOCATION '{}/tmp/x'",
            lab.environment["HDFS_URL"]
        ),
    ];
    lab.spark(&statements);
    let (code, told) = ask(lab, &["setup", "-D", "catalog.database=other"]);
    assert_eq!(code, Some(1), "{told}");
    for difference in [
        "column 2 is `tryear string`, must be `unix_tstamp bigint`",
        "partition column 4 is missing, must be `h tinyint`",
        "/tmp/x, must be hdfs://",
    ] {
        assert!(told.contains(difference), "{difference}: {told}");
    }
    let (code, told) = ask(lab, &["doctor", "-D", "catalog.database=other"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("FAIL  table          other.flow: column 2"),
        "{told}"
    );
    let (code, told) = run(
        lab,
        &[&INGEST[..], &["-D", "catalog.database=other"]].concat(),
    );
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("other.flow is another table"), "{told}");
}

#[test]
fn kerberos_by_ticket_and_keytab() {
    let Some(secure) = lab(&["secure", "--hms"], &[("AES", "1")]) else {
        return;
    };
    assert_eq!(ask(&secure, &["setup"]).0, Some(0));
    let (code, told) = run(&secure, &["--date", DAY]);
    assert_eq!(code, Some(0), "{told}");
    assert!(counted(&secure) > 0);
    assert!(
        rows(&secure, &count("flow_groups"))[0]["n"]
            .as_u64()
            .unwrap()
            > 0
    );
    let keytab = format!("hadoop.keytab={}", secure.environment["KEYTAB"]);
    let principal = format!("hadoop.principal={}", secure.environment["PRINCIPAL"]);
    let no_ticket = |args: &[&str]| {
        let mut command = secure.command();
        command.env("KRB5CCNAME", "FILE:/nonexistent").args(args);
        text(
            &command
                .args(["-D", &secure.warehouse("day")])
                .args(TOLD)
                .output()
                .unwrap(),
        )
    };
    let (code, told) = no_ticket(&["setup", "-D", &keytab, "-D", &principal]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = no_ticket(&["setup"]);
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains("kinit, or set hadoop.principal"), "{told}");
    let (code, told) = ask(
        &secure,
        &["setup", "-D", "hive.metastore.sasl.enabled=false"],
    );
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("do hive.metastore.sasl.enabled"), "{told}");
    let (code, told) = ask(&secure, &["doctor"]);
    assert_eq!(code, Some(0), "{told}");
    for line in [
        "SASL with Kerberos, version 2 or 3",
        "data privacy, cipher AES/CTR/NoPadding",
        "lives",
        "0 that make runs fail",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    // All is green but for what a busy machine does to the speed.
    assert!(!told.replace("warn  speed", "").contains("warn"), "{told}");
}

#[test]
fn version_4_buffered_and_framed() {
    let Some(four) = lab(&["simple", "--hms4"], &[]) else {
        return;
    };
    assert_eq!(ask(&four, &["setup"]).0, Some(0));
    for _ in 0..2 {
        let (code, told) = run(&four, &[&INGEST[..], &["--reprocess", "all"]].concat());
        assert_eq!(code, Some(0), "{told}");
    }
    let (code, told) = ask(&four, &["doctor"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("buffered, version 4"), "{told}");
    framed(&four);
}

/// The other transport, which clients and metastore are told of by hive-site.xml.
fn framed(lab: &Lab) {
    let site = format!("{}/hive-site.xml", lab.environment["HIVE_CONF_DIR"]);
    let text = std::fs::read_to_string(&site).unwrap();
    let key = "hive.metastore.thrift.framed.transport.enabled";
    let property = format!("<property><name>{key}</name><value>true</value></property>");
    let end = "</configuration>";
    std::fs::write(&site, text.replace(end, &format!("{property}{end}"))).unwrap();
    lab.sh(&["kill", "hms"]);
    lab.sh(&["start", "hms"]);
    let (code, told) = run(lab, &[&INGEST[..], &["--reprocess", "all"]].concat());
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = ask(lab, &["doctor"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("framed, version"), "{told}");
    let buffered = format!("{key}=false");
    let (code, told) = ask(lab, &["setup", "-D", &buffered]);
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("framed.transport.enabled agree"), "{told}");
    let (code, told) = ask(lab, &["doctor", "-D", &buffered]);
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("FAIL  metastore"), "{told}");
}
