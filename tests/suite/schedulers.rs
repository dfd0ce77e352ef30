//! What schedulers call and read: forms, exit codes, properties, logs, metrics, lineage, reports.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::klieg;
use crate::support::klieg_stdout;
use crate::support::python;
use crate::support::warn;

const DAY: &str = "2016-07-08";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const JOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
const KLIEG: &str = env!("CARGO_BIN_EXE_klieg");

/// A site file of a warehouse, with settings that make a run quick.
fn site(warehouse: &Warehouse) -> PathBuf {
    let path = warehouse.path("site of 'tests'.yaml");
    let root = warehouse.path("");
    let text = format!(
        "warehouse: {}\ningest:\n  settle: 0s\nsuspicious:\n  model: none\n",
        root.display()
    );
    fs::write(&path, text).unwrap();
    path
}

fn emit(warehouse: &Warehouse, scheduler: &str, more: &[&str]) -> String {
    let site = site(warehouse);
    let own = [
        "emit",
        scheduler,
        JOB,
        "--config",
        site.to_str().unwrap(),
        "--klieg",
        KLIEG,
    ];
    klieg_stdout(&[&own[..], more].concat())
}

/// Runs a command as a scheduler does: a bare environment, no terminal, stdin closed.
fn shell(command: &str, environment: &[(&str, &str)]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec <&-; {command}")]);
    shell
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    shell.envs(environment.iter().copied()).stdin(Stdio::null());
    shell.output().unwrap()
}

fn line_of<'a>(text: &'a str, start: &str) -> &'a str {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(start)).unwrap()
}

/// A folder that `scripts/test` prepares; said loudly where it is missing with --no-lab.
fn prepared(name: &str) -> Option<PathBuf> {
    let path = Path::new(ROOT).join("target").join(name);
    if path.try_exists().unwrap() {
        return Some(path);
    }
    assert!(
        std::env::var_os("NO_LAB").is_some(),
        "{}: run scripts/test",
        path.display()
    );
    warn(&format!("skipped what needs target/{name}: NO_LAB is set"));
    None
}

#[test]
fn cron_runs_the_day_before_and_is_silent() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let form = emit(&warehouse, "cron", &["--at", "03:05"]);
    let command = line_of(&form, "5 3 * * * ");
    assert!(command.contains("--date yesterday --quiet"), "{command}");
    // Nothing has landed for yesterday: one line, code 3.
    let output = shell(command, &[]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), stderr.lines().count()),
        (Some(3), 1),
        "{stderr}"
    );
    let output = shell(&command.replace("yesterday", DAY), &[]);
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && text.is_empty(),
        "{}",
        String::from_utf8_lossy(&text)
    );
    assert!(
        warehouse
            .path("flow/hive/y=2016/m=7/d=8/_SUCCESS")
            .is_file()
    );
    let hourly = emit(
        &warehouse,
        "cron",
        &["--hourly", "--steps", "ingest", "--at", "00:20"],
    );
    let command = line_of(&hourly, "20 * * * * ");
    assert!(command.contains("--date last-hour"), "{command}");
    assert_eq!(shell(command, &[]).status.code(), Some(3));
}

#[test]
fn azkaban_gets_the_summary_as_json() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let form = emit(&warehouse, "azkaban", &[]);
    // Azkaban replaces parameters itself, then runs the command.
    let command = line_of(&form, "command=").replace("${day}", DAY);
    let out = warehouse.path("out.json");
    let environment = [("JOB_OUTPUT_PROP_FILE", out.to_str().unwrap())];
    let output = shell(&command, &environment);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let summary: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(summary["status"], "ok");
    assert_eq!(summary["partitions_ok"], "1");
    let report = summary["report"].as_str().unwrap();
    assert!(
        Path::new(report).join("flow-2016-07-08.json").is_file(),
        "{report}"
    );
}

#[test]
fn oozie_forms_are_valid_and_their_command_tells_a_status() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let folder = warehouse.path("oozie");
    let folder = folder.to_str().unwrap();
    emit(&warehouse, "oozie", &["--out", folder]);
    let again = ["emit", "oozie", JOB, "--out", folder];
    let again = klieg(&again);
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(stderr.contains("workflow.xml: File exists"), "{stderr}");
    let arguments = python(
        "
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1] + '/workflow.xml').getroot()
for argument in root.iter('{uri:oozie:shell-action:1.0}argument'):
    print(argument.text)
",
        &[folder],
    );
    // As on a NodeManager: the files of the action are in its folder, which is the working folder.
    let action = warehouse.path("container");
    fs::create_dir(&action).unwrap();
    fs::copy(JOB, action.join("flow.yaml")).unwrap();
    let site = site(&warehouse);
    fs::copy(&site, action.join(site.file_name().unwrap())).unwrap();
    let run = |day: &str| {
        let arguments: Vec<_> = arguments
            .lines()
            .map(|text| text.replace("${day}", day))
            .collect();
        let mut command = Command::new(KLIEG);
        command
            .args(&arguments)
            .env_clear()
            .current_dir(&action)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.stdout.len() <= 2048);
        let text = String::from_utf8(output.stdout).unwrap();
        let status = text.lines().next().unwrap_or_default().to_owned();
        (output.status.code(), status)
    };
    assert_eq!(run(DAY), (Some(0), "status=ok".to_owned()));
    assert_eq!(run(DAY), (Some(0), "status=nothing".to_owned()));
    assert_eq!(run("2016-08-01"), (Some(0), "status=missing".to_owned()));
    fs::remove_dir_all(warehouse.path("flow")).unwrap();
    assert_eq!(run(DAY), (Some(0), "status=missing".to_owned()));
    if let Some(schemas) = prepared("test-oozie") {
        assert_valid(folder, &schemas);
    }
}

/// Validates the forms with the schemas of Oozie.
fn assert_valid(folder: &str, schemas: &Path) {
    let valid = python(
        "
import sys
from lxml import etree
folder, schemas = sys.argv[1:]
def check(name, parts):
    imports = ''.join(f'<xs:import namespace=\"{ns}\" schemaLocation=\"{schemas}/{file}\"/>' for ns, file in parts)
    schema = etree.XMLSchema(etree.fromstring(
        f'<xs:schema xmlns:xs=\"http://www.w3.org/2001/XMLSchema\">{imports}</xs:schema>'))
    schema.assertValid(etree.parse(f'{folder}/{name}'))
    print('valid', name)
check('workflow.xml', [('uri:oozie:workflow:1.0', 'oozie-workflow-1.0.xsd'),
                       ('uri:oozie:shell-action:1.0', 'shell-action-1.0.xsd')])
check('coordinator.xml', [('uri:oozie:coordinator:0.4', 'oozie-coordinator-0.4.xsd')])
",
        &[folder, schemas.to_str().unwrap()],
    );
    assert_eq!(valid, "valid workflow.xml\nvalid coordinator.xml\n");
}

#[test]
fn airflow_runs_the_task_and_takes_skipped_for_skipped() {
    let Some(environment) = prepared("test-airflow") else {
        return;
    };
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let home = warehouse.path("airflow");
    let dags = home.join("dags");
    emit(&warehouse, "airflow", &["--out", dags.to_str().unwrap()]);
    let airflow = |args: &[&str]| {
        let mut command = Command::new(environment.join("bin/airflow"));
        command
            .args(args)
            .env("AIRFLOW_HOME", &home)
            .stdin(Stdio::null());
        command.env("AIRFLOW__CORE__LOAD_EXAMPLES", "False");
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    };
    airflow(&["db", "migrate"]);
    let errors = airflow(&["dags", "list-import-errors"]);
    assert!(errors.contains("No data found"), "{errors}");
    // The task of the ninth does the eighth.
    let text = airflow(&["tasks", "test", "flow", "run", "2016-07-09"]);
    assert!(text.contains("\"status\":\"ok\""), "{text}");
    assert!(
        warehouse
            .path("flow/hive/y=2016/m=7/d=8/_SUCCESS")
            .is_file()
    );
    let text = airflow(&["tasks", "test", "flow", "run", "2016-07-09"]);
    assert!(
        text.contains("Bash command returned exit code 99. Skipping."),
        "{text}"
    );
}

#[test]
fn names_that_a_form_cannot_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.yaml");
    fs::write(&job, "name: \"a b\"\npipeline: flow\nsteps: [ingest]\n").unwrap();
    let output = klieg(&["emit", "cron", job.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let output = klieg(&["emit", "cron", JOB, "--hourly"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("works on whole days"), "{stderr}");
    // What would end a command, a string or an element stays text.
    let nasty = "hadoop.user=x'y\"z<&%";
    let cron = klieg_stdout(&["emit", "cron", JOB, "-D", nasty]);
    assert!(cron.contains("-D 'hadoop.user=x'\\''y\"z<&\\%'"), "{cron}");
    let oozie = klieg_stdout(&["emit", "oozie", JOB, "-D", nasty]);
    assert!(
        oozie.contains("<argument>hadoop.user=x'y&quot;z&lt;&amp;%</argument>"),
        "{oozie}"
    );
}

#[test]
fn codes_time_outs_and_logs() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let code = |args: &[&str]| warehouse.run(args).status.code();
    let skip = ["--skip-exit-code", "99"];
    fn run<'a>(args: &[&'a str]) -> Vec<&'a str> {
        [&["--date", DAY, "-D", "suspicious.model=none"], args].concat()
    }
    assert_eq!(
        code(&[&["--date", "2016-08-01"], &skip[..]].concat()),
        Some(99)
    );
    assert_eq!(code(&run(&skip)), Some(0));
    assert_eq!(code(&run(&skip)), Some(99));
    // Stopped by its time, with nothing left behind.
    let output = warehouse.run(&run(&["--timeout", "1ms", "--reprocess", "all"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(
        stderr.contains("stopped after --timeout 0.001 s"),
        "{stderr}"
    );
    let output = warehouse.run(&run(&["--log", "json", "--reprocess", "all"]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.lines().count() > 3);
    for line in stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "INFO");
        assert!(line["ts"].as_str().unwrap().ends_with('Z') && line["msg"].is_string());
        assert!(line["run_id"].as_str().unwrap().contains("Z-"), "{line}");
    }
    let output = warehouse.run(&["--date", "2016-08-01", "--log", "json"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let last: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR");
}

#[test]
fn metrics_lineage_and_reports_have_their_forms() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let (metrics, lineage) = (
        warehouse.path("klieg.prom"),
        warehouse.path("lineage.jsonl"),
    );
    let files = [
        "--metrics-file",
        metrics.to_str().unwrap(),
        "--lineage-file",
        lineage.to_str().unwrap(),
    ];
    let result = warehouse.run_ok(&[&["--date", DAY], &files[..]].concat());
    let value = |name: &str| -> f64 {
        let text = fs::read_to_string(&metrics).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let rows = result["days"][0]["outcome"]["steps"][0]["rows"]
        .as_f64()
        .unwrap();
    assert_eq!(value("klieg_last_run_rows"), rows);
    let success = value("klieg_last_success_timestamp_seconds");
    assert!(success > 1.4e9);
    // A failure keeps the time of the last success.
    let output = warehouse.run(&[&["--date", "2016-08-01"], &files[..]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(value("klieg_last_success_timestamp_seconds"), success);
    assert_eq!(
        value("klieg_last_run_partitions{job=\"flow\",pipeline=\"flow\",status=\"failed\""),
        1.0
    );
    let events = fs::read_to_string(&lineage).unwrap();
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["eventType"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["START", "COMPLETE", "START", "FAIL"]);
    assert_eq!(events[0]["run"], events[1]["run"]);
    assert!(events[1]["inputs"].as_array().unwrap().len() > 100);
    assert_eq!(events[1]["outputs"].as_array().unwrap().len(), 5);
    every_report_has_its_form(&warehouse, result["run_id"].as_str().unwrap());
}

/// Every kind of report: published, failed, recovered, rolled back.
fn every_report_has_its_form(warehouse: &Warehouse, run: &str) {
    let root = format!("warehouse={}", warehouse.path("").display());
    warehouse.run_ok(&["--date", DAY, "-D", "suspicious.groups=7"]);
    warehouse.run_ok(&[
        "--date",
        DAY,
        "-D",
        "suspicious.groups=8",
        "--cluster",
        "local:1",
    ]);
    klieg_stdout(&["rollback", "flow/2016-07-08", "--to", run, "-D", &root]);
    let mut killed = Command::new(KLIEG);
    killed.env("KLIEG_KILL_AT", "after the journal");
    let killed = killed.args([
        "run",
        JOB,
        "-D",
        &root,
        "--date",
        DAY,
        "--steps",
        "ingest",
        "--reprocess",
        "all",
    ]);
    assert_eq!(killed.output().unwrap().status.code(), None);
    klieg_stdout(&["recover", "-D", &root]);
    let checked = python(
        "
import glob, json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
kinds = []
for path in glob.glob(sys.argv[2] + '/.klieg/history/*/*.json'):
    report = json.load(open(path))
    jsonschema.validate(report, schema, jsonschema.Draft202012Validator)
    kinds.append(report['status'] + ' ' + sorted(report['outcome'])[0])
print(sorted(kinds))
",
        &[
            concat!(env!("CARGO_MANIFEST_DIR"), "/conf/report.schema.json"),
            warehouse.path("").to_str().unwrap(),
        ],
    );
    let kinds = "['failed error', 'published day', 'published day', 'published day', 'published folders', 'rolledback folders']\n";
    assert_eq!(checked, kinds);
}
