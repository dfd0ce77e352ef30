//! `klieg run` on whole days: what is published, what is skipped, what bad input gets, what a signal leaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use klieg::synth;
use klieg::synth::SynthDay;
use klieg::synth::SynthParams;
use klieg::wire::nfcapd::Compression;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::klieg;
use crate::support::klieg_stdout;
use crate::support::shared_data;
use crate::support::warn;

/// A folder that is a warehouse.
pub(crate) struct Warehouse {
    folder: TempDir,
}

impl Warehouse {
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("flow/landing")).unwrap();
        Self { folder }
    }

    pub(crate) fn with_days(days: &[&str], flows: u64) -> Self {
        let warehouse = Self::empty();
        for day in days {
            warehouse.land(day, flows, |_| {});
        }
        warehouse
    }

    /// Lands a day whose records `change` has changed.
    pub(crate) fn land(&self, day: &str, flows: u64, change: impl Fn(&mut SynthDay)) {
        let params = SynthParams {
            day: day.parse().unwrap(),
            flows,
            seed: 1,
        };
        let mut generated = synth::generate(&params);
        change(&mut generated);
        let (landing, truth) = (self.path("flow/landing").join(day), self.path("truth"));
        synth::write(&generated, Compression::Lz4, &landing, &truth).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
        let root = format!("warehouse={}", self.folder.path().display());
        let mut all = vec![
            "run",
            job,
            "-D",
            &root,
            "-D",
            "ingest.settle=0s",
            "-D",
            "suspicious.models=2",
            "-D",
            "suspicious.token_models=1",
        ];
        all.extend(args);
        klieg(&all)
    }

    #[track_caller]
    pub(crate) fn run_ok(&self, args: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        let output = self.run(&all);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn run_fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        stderr
    }

    /// Every published file but manifests (which hold no data) with its bytes, and names without their tags.
    pub(crate) fn published(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for top in ["flow/hive", "flow/scored_results", "flow/model"] {
            collect(&self.path(top), self.folder.path(), &mut files);
        }
        files
    }
}

fn collect(folder: &Path, root: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, files);
        } else if !path.ends_with("_manifest.json") {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

fn counts(result: &Value) -> &Value {
    &result["days"][0]["outcome"]["steps"][0]["report"]["counts"]
}

#[test]
fn a_day_is_published_shown_and_skipped() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 30_000);
    let result = warehouse.run_ok(&["--date", "2016-07-08"]);
    let counts = counts(&result);
    let number = |name: &str| counts[name].as_u64().unwrap();
    assert!(number("kept") > 20_000);
    assert_eq!(number("read"), number("kept") + number("outside"));
    let hours = std::fs::read_dir(warehouse.path("flow/hive/y=2016/m=7/d=8")).unwrap();
    let hours = hours
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count();
    assert_eq!(hours, 24);
    let parquet = warehouse
        .published()
        .keys()
        .filter(|name| name.contains("/h="))
        .count();
    assert!(parquet < 60, "{parquet} table files of 288 raw files");
    let root = format!("warehouse={}", warehouse.folder.path().display());
    let top = klieg_stdout(&[
        "top", "flow", "--date", "20160708", "-D", &root, "-n", "5", "--output", "json",
    ]);
    let top: Value = serde_json::from_str(&top).unwrap();
    let ranks: Vec<_> = top
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["rank"].as_u64().unwrap())
        .collect();
    assert_eq!(ranks, [1, 2, 3, 4, 5]);
    let csv = klieg_stdout(&[
        "top", "flow", "--date", "20160708", "-D", &root, "-n", "5", "--by", "a", "--output", "csv",
    ]);
    assert_eq!(csv.lines().count(), 6);
    let results = std::fs::read_to_string(
        warehouse.path("flow/scored_results/20160708/scores/flow_results.csv"),
    )
    .unwrap();
    assert_eq!(results.lines().count(), 3000);
    let scores: Vec<f64> = results
        .lines()
        .map(|line| line.rsplit('\t').next().unwrap().parse().unwrap())
        .collect();
    assert!(scores.is_sorted());
    let before = warehouse.published();
    let again = warehouse.run_ok(&["--date", "2016-07-08"]);
    for step in again["days"][0]["outcome"]["steps"].as_array().unwrap() {
        assert_eq!(step["published"], false);
    }
    assert!(before == warehouse.published());
    let props = warehouse.run(&["--date", "2016-07-08", "--output", "props"]);
    let props = String::from_utf8(props.stdout).unwrap();
    assert!(
        props.contains("status=nothing\n") && props.contains("partitions_skipped=1\n"),
        "{props}"
    );
}

#[test]
fn threads_and_order_do_not_change_a_byte() {
    let warehouse = Warehouse::with_days(&["2016-07-08", "2016-07-09"], 12_000);
    warehouse.run_ok(&[
        "--from",
        "2016-07-08",
        "--to",
        "2016-07-09",
        "--threads",
        "1",
    ]);
    let first = warehouse.published();
    assert!(first.len() > 40, "{:?}", first.keys());
    for threads in ["2", "7"] {
        for day in ["2016-07-09", "2016-07-08", "2016-07-08"] {
            warehouse.run_ok(&["--date", day, "--reprocess", "all", "--threads", threads]);
        }
        let again = warehouse.published();
        let names: Vec<_> = first
            .keys()
            .filter(|name| again.get(*name) != first.get(*name))
            .collect();
        assert!(
            names.is_empty() && first.len() == again.len(),
            "{threads} threads: {names:?}"
        );
    }
}

/// The lowest N flows are those of all flows sorted, ties by the stated key.
#[test]
fn the_lowest_flows_are_the_head_of_all() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 8_000);
    let results = warehouse.path("flow/scored_results/20160708/scores/flow_results.csv");
    let read = |limit: &str| {
        let limit = format!("suspicious.max_results={limit}");
        warehouse.run_ok(&["--date", "2016-07-08", "-D", &limit]);
        std::fs::read_to_string(&results).unwrap()
    };
    let all = read("-1");
    let scores: Vec<f64> = all
        .lines()
        .map(|line| line.rsplit('\t').next().unwrap().parse().unwrap())
        .collect();
    let middle = scores[scores.len() / 2];
    let threshold = format!("suspicious.threshold={middle}");
    let more = ["-D", "suspicious.max_results=-1", "-D", &threshold];
    warehouse.run_ok(&[&["--date", "2016-07-08"], &more[..]].concat());
    let kept = std::fs::read_to_string(&results).unwrap().lines().count();
    let wanted = scores.iter().filter(|score| **score <= middle).count();
    assert_eq!(kept, wanted);
    for limit in [1, 10, 700] {
        let head: Vec<_> = all.lines().take(limit).collect();
        assert_eq!(read(&limit.to_string()).lines().collect::<Vec<_>>(), head);
    }
    warehouse.run_ok(&["--date", "2016-07-08", "-D", "suspicious.model=none"]);
    assert_eq!(
        std::fs::read_to_string(&results).unwrap().lines().count(),
        3000
    );
}

#[test]
fn pyarrow_and_duckdb_read_what_inspect_shows() {
    let Some(file) = shared_data("nfcapd/nfcapd-small-lzo") else {
        return;
    };
    let warehouse = Warehouse::empty();
    std::fs::copy(&file, warehouse.path("flow/landing/small.nfcapd")).unwrap();
    let shown = klieg_stdout(&[
        "inspect",
        "--output",
        "csv",
        "-n",
        "all",
        file.to_str().unwrap(),
    ]);
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect())
        .collect();
    let day = &rows[0][0][..10];
    warehouse.run_ok(&["--date", day, "--steps", "ingest"]);
    let script = r#"
import sys, glob, json, duckdb, pyarrow.parquet as pq
files = sorted(glob.glob(sys.argv[1] + '/flow/hive/y=*/m=*/d=*/h=*/*.parquet'))
tables = [pq.ParquetFile(f) for f in files]
for t in tables:
    m = t.metadata
    assert m.format_version == '1.0' and m.created_by.startswith('klieg version'), (m.format_version, m.created_by)
    assert b'ARROW:schema' not in (m.metadata or {})
    for g in range(m.num_row_groups):
        for c in range(m.num_columns):
            column = m.row_group(g).column(c)
            assert column.compression == 'SNAPPY'
            assert not any('DELTA' in e or 'BYTE_STREAM' in e for e in column.encodings), column.encodings
rows = [r for t in tables for r in t.read().to_pylist()]
key = ['treceived', 'sip', 'dip', 'sport', 'dport', 'proto', 'flag', 'ipkt', 'ibyt']
ours = sorted([str(r[k]) for k in key] for r in rows)
duck = duckdb.sql(f"select {','.join(key)} from read_parquet({files!r}, hive_partitioning=false)").fetchall()
assert ours == sorted([str(v) for v in r] for r in duck)
print(json.dumps(ours))
"#;
    let output = Command::new("python3")
        .env(
            "PYTHONPATH",
            concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-python"),
        )
        .args(["-c", script, warehouse.folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ours: Vec<Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
    // Columns of `nfdump -o csv`: ts, te, td, sa, da, sp, dp, pr, flg, fwd, stos, ipkt, ibyt.
    let columns = [0, 3, 4, 5, 6, 7, 8, 11, 12];
    let mut theirs: Vec<Vec<String>> = rows
        .iter()
        .filter(|row| row[0].starts_with(day))
        .map(|row| columns.map(|column| row[column].to_owned()).to_vec())
        // nfdump shows CWR and ECE too; Spot's column has the last six.
        .map(|mut row: Vec<String>| {
            row[6] = row[6][2..].to_owned();
            row
        })
        .collect();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn the_four_encodings_of_a_capture_give_one_table() {
    let mut tables = Vec::new();
    for name in ["v1.lzo", "v1.bz2", "v2.lz4", "v2.zstd"] {
        let Some(file) = shared_data(&format!("nfcapd/ctu13-1m.{name}.nfcapd")) else {
            return;
        };
        let warehouse = Warehouse::empty();
        std::fs::hard_link(&file, warehouse.path("flow/landing/x.nfcapd"))
            .or_else(|_| std::fs::copy(&file, warehouse.path("flow/landing/x.nfcapd")).map(drop))
            .unwrap();
        let result = warehouse.run_ok(&["--date", "2016-07-08", "--steps", "ingest"]);
        let counts = counts(&result);
        assert_eq!(
            (counts["read"].as_u64(), counts["kept"].as_u64()),
            (Some(1_000_000), Some(1_000_000))
        );
        let parts = &result["days"][0]["outcome"]["steps"][0]["report"]["parts"];
        let rows: Vec<_> = parts
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["rows"].as_u64())
            .collect();
        tables.push(rows);
    }
    assert!(
        tables.windows(2).all(|pair| pair[0] == pair[1]),
        "{tables:?}"
    );
}

#[test]
fn bad_input_says_what_and_leaves_what_was_published() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 8_000);
    warehouse.run_ok(&["--date", "2016-07-08"]);
    let before = warehouse.published();
    let unchanged = |what: &str| assert!(before == warehouse.published(), "{what}");
    let stderr = warehouse.run_fails(&["--date", "2016-07-20"], 3);
    assert!(stderr.contains("no raw file for 2016-07-20"), "{stderr}");
    let stderr = warehouse.run_fails(&["--date", "2016-02-30"], 2);
    assert!(
        stderr.contains("`2016-02-30` is not a date that exists"),
        "{stderr}"
    );
    let stderr = warehouse.run_fails(&["--from", "2016-07-09", "--to", "2016-07-08"], 2);
    assert!(stderr.contains("lies after"), "{stderr}");
    warehouse.run_fails(&["--from", "2016-07-09"], 2);
    let stderr = warehouse.run_fails(&["--date", "2016-07-08", "-D", "ingest.slak=1h"], 2);
    assert!(stderr.contains("did you mean `ingest.slack`?"), "{stderr}");
    unchanged("usage");

    let junk = warehouse.path("flow/landing/nfcapd.201607081200");
    std::fs::write(&junk, vec![7; 4096]).unwrap();
    let stderr = warehouse.run_fails(&["--date", "2016-07-08", "-D", "ingest.rejects_max=0"], 7);
    assert!(
        stderr.contains("1 of ") && stderr.contains("nfcapd.201607081200"),
        "{stderr}"
    );
    unchanged("not an nfcapd file");
    std::fs::remove_file(&junk).unwrap();

    let current = warehouse.path("flow/landing/nfcapd.current.4711");
    std::fs::write(&current, b"x").unwrap();
    let output = warehouse.run(&["--date", "2016-07-08"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("still being written"));
    unchanged("a collector's open file");

    let lock = File::options()
        .write(true)
        .open(warehouse.path(".klieg/locks/flow-20160708"))
        .unwrap();
    lock.lock().unwrap();
    let stderr = warehouse.run_fails(&["--date", "2016-07-08", "--reprocess", "all"], 4);
    assert!(stderr.contains("locked by a live run (run "), "{stderr}");
    lock.unlock().unwrap();
    unchanged("locked");

    let root = "warehouse=/nowhere/at/all";
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let output = klieg(&["plan", job, "--date", "2016-07-08", "-D", root]);
    assert_eq!(output.status.code(), Some(3));
    let output = klieg(&["top", "flow", "--date", "2016-07-08", "-D", root]);
    assert_eq!(output.status.code(), Some(3));
    let output = klieg(&["run", "no/such/job.yaml", "--date", "2016-07-08"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_day_whose_raw_files_are_gone_is_kept() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 8_000);
    warehouse.run_ok(&["--date", "2016-07-08"]);
    let before = warehouse.published();
    let gone = warehouse.path("flow/landing/2016-07-08/nfcapd.201607081200");
    std::fs::rename(&gone, warehouse.path("away")).unwrap();
    let output = warehouse.run(&["--date", "2016-07-08"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && stderr.contains("is kept as published"),
        "{stderr}"
    );
    assert!(before == warehouse.published());
    warehouse.run_ok(&["--date", "2016-07-08", "--reprocess", "all"]);
    assert!(before != warehouse.published());
}

/// Files of another day under this day's names.
#[test]
fn records_of_other_days_do_not_empty_a_day() {
    let warehouse = Warehouse::with_days(&["2016-07-08", "2016-07-09"], 8_000);
    let foreign = |name: &str| warehouse.path("flow/landing").join(name);
    let stamp = |day: &str, hour: u32| {
        foreign(day).join(format!("nfcapd.{}{hour:02}00", day.replace('-', "")))
    };
    let landing = foreign("2016-07-08");
    let names: Vec<_> = std::fs::read_dir(&landing)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let other = std::fs::read(stamp("2016-07-09", 12)).unwrap();
    let days = ["--date", "2016-07-08", "--steps", "ingest"];
    warehouse.run_ok(&days);
    let before = warehouse.published();
    for name in &names {
        std::fs::write(name, &other).unwrap();
    }
    let stderr = warehouse.run_fails(&days, 7);
    assert!(
        stderr.contains("is of 2016-07-08 by its time of start")
            && stderr.contains("rows are published"),
        "{stderr}"
    );
    assert!(before == warehouse.published());
    let result = warehouse.run_ok(&[&days[..], &["--reprocess", "all"]].concat());
    let counts = counts(&result);
    assert_eq!(counts["kept"].as_u64(), Some(0));
    assert_eq!(counts["read"], counts["outside"]);
}

/// A cut file, a link to a file that is there, a link to nowhere: nothing is read twice, nothing is lost unseen.
#[test]
fn cut_files_and_links_are_told() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 8_000);
    let landing = warehouse.path("flow/landing");
    std::os::unix::fs::symlink("2016-07-08/nfcapd.201607081200", landing.join("latest")).unwrap();
    std::os::unix::fs::symlink("nowhere", landing.join("broken")).unwrap();
    std::os::unix::fs::symlink(".", landing.join("loop")).unwrap();
    let result = warehouse.run_ok(&["--date", "2016-07-08", "--steps", "ingest"]);
    let read = counts(&result)["read"].as_u64().unwrap();
    let Some(capture) = shared_data("nfcapd/ctu13-1m.v2.lz4.nfcapd") else {
        return;
    };
    let bytes = std::fs::read(capture).unwrap();
    let cut = landing.join("cut.nfcapd");
    // The header still announces all blocks.
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let stderr = warehouse.run_fails(&["--date", "2016-07-08", "--steps", "ingest"], 7);
    assert!(stderr.contains("cut.nfcapd"), "{stderr}");
    let result = warehouse.run_ok(&[
        "--date",
        "2016-07-08",
        "--steps",
        "ingest",
        "-D",
        "ingest.rejects_max=1",
    ]);
    let counts = counts(&result);
    let rejected: u64 = counts["rejected"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    let number = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!(
        number("read"),
        number("kept") + number("outside") + rejected
    );
    assert!(number("read") > read + 400_000 && rejected > 1, "{counts}");
}

#[test]
fn plan_says_what_run_does() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 8_000);
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let root = format!("warehouse={}", warehouse.folder.path().display());
    let plan = |more: &[&str]| {
        let models = [
            "-D",
            "suspicious.models=2",
            "-D",
            "suspicious.token_models=1",
            "-D",
            "ingest.settle=0s",
        ];
        let base = ["plan", job, "--date", "2016-07-08", "-D", &root];
        klieg_stdout(&[&base[..], &models[..], more].concat())
    };
    assert!(plan(&[]).starts_with("2016-07-08  run: nothing is published"));
    warehouse.run_ok(&["--date", "2016-07-08", "--steps", "ingest"]);
    assert!(plan(&[]).starts_with("2016-07-08  run: the table is up to date"));
    warehouse.run_ok(&["--date", "2016-07-08"]);
    assert!(plan(&[]).starts_with("2016-07-08  skip: up to date"));
    assert!(
        plan(&["-D", "suspicious.topics=9"])
            .starts_with("2016-07-08  run: the table is up to date")
    );
    assert!(plan(&["-D", "ingest.slack=2h"]).starts_with("2016-07-08  replace: "));
}

#[test]
fn damaged_files_are_counted_and_refused_above_the_limit() {
    let Some(file) = shared_data("nfcapd/nfcapd-corrupt") else {
        return;
    };
    let warehouse = Warehouse::empty();
    std::fs::copy(&file, warehouse.path("flow/landing/corrupt.nfcapd")).unwrap();
    let shown: Value = serde_json::from_str(&klieg_stdout(&[
        "inspect",
        "--output",
        "json",
        file.to_str().unwrap(),
    ]))
    .unwrap();
    let day =
        chrono::DateTime::from_timestamp_millis(shown["first_ms"].as_i64().unwrap_or(0)).unwrap();
    let day = day.format("%Y-%m-%d").to_string();
    let stderr = warehouse.run_fails(&["--date", &day], 7);
    assert!(
        stderr.contains("nothing was published") && stderr.contains("corrupt.nfcapd"),
        "{stderr}"
    );
    assert!(warehouse.published().is_empty());
    let result = warehouse.run_ok(&[
        "--date",
        &day,
        "--steps",
        "ingest",
        "-D",
        "ingest.rejects_max=1",
    ]);
    let counts = counts(&result);
    let rejected: u64 = counts["rejected"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    let number = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!(
        number("read"),
        number("kept") + number("outside") + rejected
    );
    assert_eq!(
        (number("kept") + number("outside"), rejected),
        (32_132, 39_181)
    );
}

/// Starts a run that is busy for much longer than a test waits before it stops it.
fn start(warehouse: &Warehouse) -> std::process::Child {
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let root = format!("warehouse={}", warehouse.folder.path().display());
    Command::new(env!("CARGO_BIN_EXE_klieg"))
        .args([
            "run",
            job,
            "--date",
            "2016-07-08",
            "--reprocess",
            "all",
            "-D",
            &root,
            "-D",
            "suspicious.models=100",
            "-D",
            "suspicious.token_models=100",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn signals_stop_at_once_and_kills_are_repaired() {
    let warehouse = Warehouse::with_days(&["2016-07-08"], 60_000);
    warehouse.run_ok(&["--date", "2016-07-08", "-D", "suspicious.models=5"]);
    let before = warehouse.published();
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let mut child = start(&warehouse);
        std::thread::sleep(Duration::from_millis(2600));
        let sent = Instant::now();
        let killed = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), code);
        assert!(sent.elapsed() < Duration::from_secs(2));
        let after = warehouse.published();
        let hours = |files: &BTreeMap<String, Vec<u8>>| {
            files.keys().filter(|name| name.contains("/h=")).count()
        };
        assert_eq!(hours(&before), hours(&after), "{signal}");
        let results = [
            "scored_results/20160708/scores",
            "hive/oa/suspicious/y=2016/m=7/d=8",
            "hive/oa/groups/y=2016/m=7/d=8",
            "model/20160708",
        ];
        let fingerprints = results.map(|folder| {
            let text =
                std::fs::read_to_string(warehouse.path("flow").join(folder).join("_manifest.json"))
                    .unwrap();
            let manifest: Value = serde_json::from_str(&text).unwrap();
            manifest["fingerprint"].to_string()
        });
        assert!(
            fingerprints.iter().all(|own| *own == fingerprints[0]),
            "{signal}: {fingerprints:?}"
        );
    }
    warehouse.run_ok(&["--date", "2016-07-08", "--reprocess", "all"]);
    let runs = std::fs::read_dir(warehouse.path(".klieg/runs/flow-20160708"))
        .unwrap()
        .count();
    assert_eq!(runs, 0, "what a killed run staged is removed");
}

#[test]
fn a_full_disk_changes_nothing() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(disk.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        warn("skipped: mounting a small tmpfs needs root");
        return;
    }
    let source = Warehouse::with_days(&["2016-07-08"], 100_000);
    let root = format!("warehouse={}", disk.path().display());
    std::fs::create_dir_all(disk.path().join("flow")).unwrap();
    std::os::unix::fs::symlink(
        source.path("flow/landing"),
        disk.path().join("flow/landing"),
    )
    .unwrap();
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let day = [
        "--date",
        "2016-07-08",
        "-D",
        "ingest.settle=0s",
        "--steps",
        "ingest",
        "-D",
        &root,
    ];
    let args = [&["run", job], &day[..]].concat();
    klieg_stdout(&args);
    let table = disk.path().join("flow/hive");
    let mut before = BTreeMap::new();
    collect(&table, disk.path(), &mut before);
    // Room is left for less than the table.
    let filler = File::create(disk.path().join("filler")).unwrap();
    let written = std::io::copy(&mut std::io::repeat(0), &mut &filler);
    assert!(written.is_err(), "the disk is full");
    filler
        .set_len(filler.metadata().unwrap().len().saturating_sub(300 << 10))
        .unwrap();
    let output = klieg(&[&args[..], &["--reprocess", "all"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut after = BTreeMap::new();
    collect(&table, disk.path(), &mut after);
    let unmounted = Command::new("umount")
        .arg("-l")
        .arg(disk.path())
        .status()
        .unwrap();
    assert!(unmounted.success());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("No space left on device")
            && stderr.contains(".parquet")
            && stderr.contains("free space"),
        "{stderr}"
    );
    assert!(!before.is_empty() && before == after);
}
