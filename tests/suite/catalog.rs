//! Tables and partitions as Spark finds them in a real Hive metastore, by the statements that klieg writes.

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::lab::Lab;

const DAY: &str = "2016-07-08";

fn statements(text: &str) -> Vec<String> {
    let statements = text.split(";\n").map(str::trim);
    let statements = statements.filter(|statement| !statement.is_empty());
    statements.map(str::to_owned).collect()
}

/// The statements for Spark that the newest run wrote, of all tables.
fn written(lab: &Lab) -> Vec<String> {
    let files = lab.files("/user/spot/day/.klieg/catalog");
    let of_spark = files.keys().filter(|path| path.ends_with(".spark.sql"));
    let of_spark: Vec<&str> = of_spark.map(String::as_str).collect();
    let newest = of_spark.last().unwrap().rsplit_once('/').unwrap().0;
    let newest = of_spark.iter().filter(|path| path.starts_with(newest));
    let paths: Vec<&str> = newest.copied().collect();
    assert_eq!(paths.len(), 3);
    statements(&lab.sh(&[&["fs", "-cat"], &paths[..]].concat()))
}

pub(crate) fn of_day(table: &str) -> String {
    format!("FROM spot.{table} WHERE y=2016 AND m=7 AND d=8")
}

pub(crate) fn count(table: &str) -> String {
    format!("SELECT count(*) AS n {}", of_day(table))
}

#[test]
fn spark_finds_tables_and_partitions_in_the_metastore() {
    let Some(lab) = Lab::up(&["simple", "--hms"]) else {
        return;
    };
    let local = Warehouse::with_days(&[DAY], 6_000);
    lab.land("day", &local.path("flow/landing"));
    let setup = lab
        .command()
        .args(["setup", "-D", &lab.warehouse("day")])
        .output()
        .unwrap();
    let setup = statements(&String::from_utf8(setup.stdout).unwrap());
    assert_eq!(setup.len(), 4);
    let args = ["--date", DAY, "-D", "catalog.kind=script"];
    let output = lab.run("day", &args);
    assert!(output.status.success());
    let questions = [
        count("flow"),
        count("flow_scores"),
        count("flow_groups"),
        format!("SELECT * {} AND h=12 LIMIT 1", of_day("flow")),
        format!("SELECT * {} AND rank = 1", of_day("flow_groups")),
    ];
    // Setup and partitions twice: what exists stays as it is.
    let all = [
        &setup[..],
        &setup,
        &written(&lab),
        &written(&lab),
        &questions,
    ]
    .concat();
    let rows = lab.spark(&all);
    let counts: Vec<_> = rows.iter().filter_map(|row| row["n"].as_u64()).collect();
    let result: Value = {
        let output = lab.run("day", &[&args[..], &["--output", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let steps = &result["days"][0]["outcome"]["steps"];
    assert_eq!(counts[0], steps[0]["rows"].as_u64().unwrap());
    assert_eq!(counts[2], steps[1]["rows"].as_u64().unwrap());
    assert_eq!(counts[1], 3000);
    let [flow, group] = &rows[3..] else {
        panic!("{rows:?}")
    };
    assert_eq!(flow["trhour"], 12);
    assert!(
        flow["sip"].is_string() && flow["start_ms"].is_u64(),
        "{flow}"
    );
    assert_eq!(group["rank"], 1);
    assert!(
        group["reason"].as_str().unwrap().contains("hosts have it"),
        "{group}"
    );
    half_of_the_day(&lab, counts[0]);
}

/// The day is replaced by half of its files: a new session sees the new rows with no REFRESH, since names are new.
fn half_of_the_day(lab: &Lab, rows_before: u64) {
    let files = lab.files("/user/spot/day/flow/landing");
    let is_early = |path: &&String| {
        let (_, time) = path.rsplit_once("nfcapd.20160708").unwrap_or_default();
        time < "1200" && !time.is_empty()
    };
    let early: Vec<&str> = files.keys().filter(is_early).map(String::as_str).collect();
    lab.sh(&[&["fs", "-rm", "-skipTrash"], &early[..]].concat());
    let args = [
        "--date",
        DAY,
        "-D",
        "catalog.kind=script",
        "--reprocess",
        "all",
    ];
    assert!(lab.run("day", &args).status.success());
    let rows = lab.spark(&[count("flow"), count("flow_groups")]);
    let rows = rows[0]["n"].as_u64().unwrap();
    assert!(rows > 0 && rows < rows_before, "{rows} of {rows_before}");
}
