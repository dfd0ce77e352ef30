//! Hours that are published alone, days on the clock of the site, days that another tool has written.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::lab::add_run;
use crate::support::python;

const DAY: &str = "2016-07-08";
const INGEST: [&str; 2] = ["--steps", "ingest"];

fn rows(result: &Value) -> Vec<u64> {
    let days = result["days"].as_array().unwrap();
    let rows = days
        .iter()
        .map(|day| day["outcome"]["steps"][0]["rows"].as_u64().unwrap());
    rows.collect()
}

fn args<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// Rows by the values of the partition columns and those of the time columns.
fn table(warehouse: &Warehouse) -> BTreeMap<String, u64> {
    let script = "
import sys, duckdb
rows = duckdb.sql(f\"\"\"SELECT y, m, d, h, tryear, trmonth, trday, trhour, count(*)
  FROM read_parquet('{sys.argv[1]}/flow/hive/y=*/m=*/d=*/h=*/*.parquet', hive_partitioning = true)
  GROUP BY ALL ORDER BY ALL\"\"\").fetchall()
for row in rows:
    print(*row)
";
    let text = python(script, &[warehouse.path("").to_str().unwrap()]);
    let lines = text.lines().map(|line| line.rsplit_once(' ').unwrap());
    lines
        .map(|(key, count)| (key.to_owned(), count.parse().unwrap()))
        .collect()
}

#[test]
fn hours_in_any_order_make_the_day() {
    let whole = Warehouse::with_days(&[DAY], 6_000);
    whole.run_ok(&args(&[&["--date", DAY], &INGEST]));
    let hours = Warehouse::with_days(&[DAY], 6_000);
    let early = hours.run_ok(&args(&[&["--date", DAY, "--hours", "0-7,20"], &INGEST]));
    assert_eq!(rows(&early).len(), 9);
    let late = args(&[
        &[
            "--from",
            "2016-07-08T08",
            "--to",
            "2016-07-08T23",
            "--backwards",
        ],
        &INGEST,
    ]);
    assert_eq!(rows(&hours.run_ok(&late)).len(), 16);
    assert_eq!(table(&hours), table(&whole));
    // All is up to date.
    let again = hours.run(&args(&[
        &["--date", DAY, "--hours", "0-23", "--output", "props"],
        &INGEST,
    ]));
    let again = String::from_utf8(again.stdout).unwrap();
    assert!(
        again.contains("status=nothing\n") && again.contains("partitions_skipped=24\n"),
        "{again}"
    );
    // The results of the hours are those of the day.
    let result = hours.run_ok(&["--date", DAY, "--steps", "suspicious"]);
    let of_day = whole.run_ok(&["--date", DAY, "--steps", "suspicious"]);
    assert_eq!(rows(&result), rows(&of_day));
    let scores = "flow/scored_results/20160708/scores/flow_results.csv";
    assert!(fs::read(hours.path(scores)).unwrap() == fs::read(whole.path(scores)).unwrap());
    // A day takes the place of its hours.
    let day = hours.run_ok(&args(&[&["--date", DAY], &INGEST]));
    assert_eq!(day["days"][0]["outcome"]["steps"][0]["published"], true);
    assert_eq!(table(&hours), table(&whole));
    assert!(
        !hours
            .path("flow/hive/y=2016/m=7/d=8/h=7/_manifest.json")
            .try_exists()
            .unwrap()
    );
}

#[test]
fn an_hour_takes_the_place_of_the_days_and_goes_back() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    warehouse.run_ok(&["--date", DAY]);
    let before = table(&warehouse);
    // Files that came late, for one hour.
    let landing = warehouse.path("flow/landing").join(DAY);
    let mut names: Vec<_> = fs::read_dir(&landing)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let of_hour = names
        .iter()
        .find(|path| path.to_str().unwrap().ends_with("201607081205"));
    fs::copy(of_hour.unwrap(), landing.join("late.201607081206")).unwrap();
    let hour = warehouse.run_ok(&args(&[&["--date", "2016-07-08T12"], &INGEST]));
    let run = hour["run_id"].as_str().unwrap();
    let after = table(&warehouse);
    let changed: Vec<_> = after
        .iter()
        .filter(|(key, rows)| before.get(*key) != Some(rows))
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].0.starts_with("2016 7 8 12 "), "{changed:?}");
    let result = warehouse.run_ok(&["--date", DAY, "--steps", "suspicious"]);
    assert_eq!(result["days"][0]["outcome"]["steps"][0]["published"], true);
    // Back to what the day had, and to the hour again.
    let root = format!("warehouse={}", warehouse.path("").display());
    let history =
        crate::support::klieg_stdout(&["history", "--date", DAY, "--output", "json", "-D", &root]);
    let history: Value = serde_json::from_str(&history).unwrap();
    let runs = history.as_array().unwrap();
    let of_day = runs
        .iter()
        .rev()
        .find(|record| record["day"] == DAY)
        .unwrap()["run"]
        .as_str()
        .unwrap();
    let back = |to: &str| {
        let partition = "flow/2016-07-08T12";
        crate::support::klieg(&["rollback", partition, "--to", to, "-D", &root])
    };
    assert_eq!(back(of_day).status.code(), Some(0));
    assert_eq!(table(&warehouse), before);
    assert_eq!(back(run).status.code(), Some(0));
    assert_eq!(table(&warehouse), after);
}

#[test]
fn a_day_and_its_hours_exclude_each_other() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let root = format!("warehouse={}", warehouse.path("").display());
    let day: [&str; 2] = ["--date", DAY];
    let hour: [&str; 2] = ["--date", "2016-07-08T12"];
    for (first, second) in [(day, hour), (hour, day)] {
        let mut frozen = std::process::Command::new(env!("CARGO_BIN_EXE_klieg"));
        frozen.env("KLIEG_STOP_AT", "before the fence");
        frozen.stderr(std::process::Stdio::null());
        let mut frozen = add_run(&mut frozen, &root, &args(&[&first, &INGEST]))
            .spawn()
            .unwrap();
        let stat = format!("/proc/{}/stat", frozen.id());
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let output = warehouse.run(&args(&[&second, &INGEST]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        assert!(stderr.contains("locked by a live run"), "{stderr}");
        frozen.kill().unwrap();
        frozen.wait().unwrap();
    }
}

#[test]
fn what_names_no_hour_is_told() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let told = |arguments: &[&str], text: &str| {
        let output = warehouse.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    };
    told(
        &["--date", "2016-07-08T07"],
        "works on whole days; add --steps ingest",
    );
    told(
        &["--date", "2016-07-08T24", "--steps", "ingest"],
        "`2016-07-08T24` names no hour",
    );
    told(
        &["--date", "2016-07-08T07:00Z", "--steps", "ingest"],
        "write 2016-07-08T07",
    );
    told(
        &[
            "--from",
            "2016-07-08",
            "--to",
            "2016-07-08T03",
            "--steps",
            "ingest",
        ],
        "a day and an hour",
    );
    told(
        &["--date", DAY, "--hours", "7-25", "--steps", "ingest"],
        "must be such as 7, 0-7",
    );
    told(
        &["--date", DAY, "-D", "timezone=Mars"],
        "`timezone` is `Mars`",
    );
    // Midnight as Oozie writes a day.
    warehouse.run_ok(&["--date", "2016-07-08T00:00Z", "--steps", "ingest"]);
}

#[test]
fn days_are_those_of_the_clock_of_the_site() {
    // Times in the names are of that clock too: slack makes up for the difference.
    let zone = ["--timezone", "Europe/Berlin", "-D", "ingest.slack=3h"];
    let days = ["2016-03-26", "2016-03-27", "2016-03-28"];
    let utc = Warehouse::with_days(&days, 6_000);
    utc.run_ok(&args(&[
        &["--from", days[0], "--to", "2016-03-29"],
        &INGEST,
    ]));
    let local = Warehouse::with_days(&days, 6_000);
    local.run_ok(&args(&[
        &["--from", days[0], "--to", "2016-03-29"],
        &INGEST,
        &zone,
    ]));
    let (of_utc, of_local) = (table(&utc), table(&local));
    assert_eq!(of_utc.values().sum::<u64>(), of_local.values().sum::<u64>());
    for key in of_local.keys() {
        let parts: Vec<_> = key.split(' ').collect();
        assert_eq!(parts[..4], parts[4..], "partition and columns agree");
        assert!(
            !key.starts_with("2016 3 27 2 "),
            "the clock skips it: {key}"
        );
    }
    let rows =
        |table: &BTreeMap<String, u64>, hour: &str| table.get(&format!("{hour} {hour}")).copied();
    // One hour before the change of the clock, two after it.
    assert_eq!(
        rows(&of_local, "2016 3 26 13"),
        rows(&of_utc, "2016 3 26 12")
    );
    assert_eq!(
        rows(&of_local, "2016 3 28 14"),
        rows(&of_utc, "2016 3 28 12")
    );
    let alone = Warehouse::with_days(&days, 6_000);
    let hour = alone.run_ok(&args(&[&["--date", "2016-03-27T03"], &INGEST, &zone]));
    assert_eq!(self::rows(&hour), [rows(&of_local, "2016 3 27 3").unwrap()]);
}

#[test]
fn what_another_tool_has_written_stays_until_it_is_adopted() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    warehouse.run_ok(&args(&[&["--date", DAY], &INGEST]));
    let day = warehouse.path("flow/hive/y=2016/m=7/d=8");
    for name in ["_manifest.json", "_SUCCESS"] {
        fs::remove_file(day.join(name)).unwrap();
    }
    let before = table(&warehouse);
    let output = warehouse.run(&["--date", DAY]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("that klieg has not published, the first h=0/part-"),
        "{stderr}"
    );
    assert_eq!(table(&warehouse), before);
    let adopted = warehouse.run_ok(&["--date", DAY, "--adopt"]);
    assert_eq!(rows(&adopted), [before.values().sum::<u64>()]);
    assert_eq!(table(&warehouse), before);
    let again = warehouse.run_ok(&["--date", DAY]);
    assert_eq!(again["days"][0]["outcome"]["steps"][0]["published"], false);
    fs::write(day.join("_manifest.json"), "not ours").unwrap();
    warehouse.run_ok(&["--date", DAY, "--reprocess", "all"]);
    assert_eq!(table(&warehouse), before);
}
