//! Each thing that can be wrong with a site is named, with what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::run::Warehouse;
use crate::support::klieg;
use crate::support::lab::Lab;

const DAY: &str = "2016-07-08";

/// Code and text of a doctor on a lab's warehouse.
fn doctor(lab: &Lab, more: &[&str]) -> (Option<i32>, String) {
    let mut command = lab.command();
    command
        .args(["doctor", "-D", &lab.warehouse("day")])
        .args(more);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn assert_named((code, text): (Option<i32>, String), wanted: i32, named: &[&str]) {
    assert_eq!(code, Some(wanted), "{text}");
    for name in named {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn a_site_of_this_machine() {
    let warehouse = Warehouse::with_days(&[DAY], 6_000);
    let root = format!("warehouse={}", warehouse.path("").display());
    let ask = |more: &[&str]| {
        let output = klieg(&[&["doctor", "-D", &root], more].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    assert_named(
        ask(&[]),
        0,
        &[
            "(command line)",
            "ok    lock",
            "ok    landing",
            "0 that make runs fail",
        ],
    );
    let (_, json) = ask(&["--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["settings"][0]["key"], "warehouse");
    assert!(
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .all(|finding| finding["level"] == "ok")
    );
    fs::create_dir_all(warehouse.path("flow/hive/y=2016/m=07/d=08")).unwrap();
    assert_named(
        ask(&[]),
        0,
        &["warn  partitions", "klieg writes m=7, not m=07"],
    );
    fs::rename(warehouse.path("flow/landing"), warehouse.path("flow/gone")).unwrap();
    assert_named(
        ask(&[]),
        3,
        &[
            "FAIL  landing",
            "let the collector put closed nfcapd files there",
        ],
    );
    assert_named(
        ask(&["-D", "warehouse=/nonexistent"]),
        3,
        &["FAIL  warehouse"],
    );
    assert!(
        fs::metadata(warehouse.path(".klieg"))
            .unwrap()
            .permissions()
            .mode()
            & 0o700
            == 0o700
    );
    let left = fs::read_dir(warehouse.path(".klieg")).unwrap().count();
    assert_eq!(left, 1, "the folder of locks alone is left");
}

#[test]
fn what_is_broken_on_a_cluster_is_named() {
    let Some(lab) = Lab::up_with(&["simple"], &[("DNS", "3")]) else {
        return;
    };
    let local = Warehouse::with_days(&[DAY], 6_000);
    lab.land("day", &local.path("flow/landing"));
    assert_named(
        doctor(&lab, &[]),
        0,
        &[
            "is active",
            "ok    clock",
            "ok    speed",
            "0 that make runs fail",
        ],
    );
    lab.sh(&["admin", "-safemode", "enter"]);
    let impatient = [
        "-D",
        "hadoop.call_timeout=2s",
        "-D",
        "hadoop.patience=2s",
        "-D",
        "hadoop.write_patience=2s",
    ];
    assert_named(
        doctor(&lab, &impatient),
        6,
        &["FAIL  write", "has left safe mode"],
    );
    lab.sh(&["admin", "-safemode", "leave"]);
    lab.sh(&["fs", "-chown", "-R", "hdfs", "/user/spot/day"]);
    lab.sh(&["fs", "-chmod", "-R", "755", "/user/spot/day"]);
    assert_named(
        doctor(&lab, &impatient),
        5,
        &["FAIL  write", "-chown, -chmod or -setfacl"],
    );
    lab.sh(&["fs", "-chown", "-R", "spot", "/user/spot/day"]);
    lab.sh(&["admin", "-setSpaceQuota", "200m", "/user/spot/day"]);
    assert_named(doctor(&lab, &[]), 0, &["warn  quota", "-setSpaceQuota"]);
    lab.sh(&["admin", "-setSpaceQuota", "30m", "/user/spot/day"]);
    assert_named(
        doctor(&lab, &impatient),
        1,
        &["FAIL  write", "raise the quota"],
    );
    lab.sh(&["admin", "-clrSpaceQuota", "/user/spot/day"]);
    clocks_that_differ(&lab);
    held_and_unreadable(&lab, &impatient);
    addresses_and_silence(&lab, &impatient);
}

fn clocks_that_differ(lab: &Lab) {
    let mut late = std::process::Command::new("faketime");
    late.args(["-f", "+11m"]).arg(lab.command().get_program());
    late.args(["doctor", "-D", &lab.warehouse("day")]);
    late.envs(&lab.environment).env("HADOOP_USER_NAME", "spot");
    late.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let output = late.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_named(
        (output.status.code(), told),
        1,
        &["FAIL  clock", "of the file system by 6", "set both by NTP"],
    );
}

/// A lock that another has, a file that cannot be read back, folders of other tools, encryption that the cluster does not know.
fn held_and_unreadable(lab: &Lab, impatient: &[&str]) {
    let first = beside(lab, impatient, "doctor has the lock", &|| {
        let named = ["warn  lock", "held by klieg doctor"];
        assert_named(doctor(lab, impatient), 0, &named);
    });
    assert_named(first, 0, &["ok    lock"]);
    let nodes = ["dn1", "dn2", "dn3"];
    let unreadable = beside(lab, impatient, "doctor has written", &|| {
        for node in nodes {
            lab.sh(&["kill", node]);
        }
    });
    assert_named(unreadable, 6, &["FAIL  read"]);
    for node in nodes {
        lab.sh(&["start", node]);
    }
    lab.sh(&[
        "fs",
        "-mkdir",
        "-p",
        "/user/spot/day/flow/hive/y=2016/m=07/d=08",
    ]);
    let named = ["warn  partitions", "klieg writes m=7, not m=07"];
    assert_named(doctor(lab, &[]), 0, &named);
    let encrypted = ["-D", "dfs.data.transfer.protection=privacy"];
    let named = ["warn  protection", "without Kerberos it has no effect"];
    assert_named(doctor(lab, &encrypted), 0, &named);
}

/// A doctor that waits at a point while something is done beside it.
fn beside(lab: &Lab, args: &[&str], point: &str, act: &dyn Fn()) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let go_on = folder.path().join("go on");
    let mut command = lab.command();
    command
        .args(["doctor", "-D", &lab.warehouse("day")])
        .args(args);
    command
        .env("KLIEG_WAIT_AT", point)
        .env("KLIEG_WAIT_FOR", &go_on);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let area = "/user/spot/day/.klieg";
    let probe = format!("{area}/doctor-{}", child.id());
    while lab.files(area).get(&probe) != Some(&(16 << 20)) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // From there to the lock it is not far.
    std::thread::sleep(Duration::from_secs(2));
    act();
    fs::write(&go_on, "").unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), told)
}

/// Wrong addresses, a NameNode that does not answer, files that are copied.
fn addresses_and_silence(lab: &Lab, impatient: &[&str]) {
    lab.sh(&[
        "fs",
        "-touchz",
        "/user/spot/day/flow/landing/nfcapd.201607082355._COPYING_",
    ]);
    assert_named(doctor(lab, &[]), 0, &["1 still being written"]);
    let port = |address: &str| format!("warehouse=hdfs://{address}/user/spot/day");
    let asks = |warehouse: String| doctor(lab, &[&["-D", warehouse.as_str()], impatient].concat());
    assert_named(
        asks(port("localhost:1")),
        6,
        &["FAIL  namenode", "nothing listens there", "start it"],
    );
    assert_named(
        asks(port("no-such-host.invalid:8020")),
        6,
        &["does not resolve"],
    );
    let http = lab.environment["NN_HTTP"].replace("http://", "");
    assert_named(asks(port(&http)), 6, &["FAIL  namenode"]);
    lab.sh(&["stop", "nn"]);
    assert_named(
        doctor(lab, impatient),
        6,
        &["FAIL  namenode", "gave no answer"],
    );
    lab.sh(&["cont", "nn"]);
    let (code, text) = doctor(lab, &["-D", "hadoop.conf_dir=/nonexistent"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warn  configuration"), "{text}");
}

#[test]
fn a_standby_that_is_down_is_named() {
    let Some(lab) = Lab::up(&["ha"]) else {
        return;
    };
    let local = Warehouse::with_days(&[DAY], 6_000);
    lab.land("day", &local.path("flow/landing"));
    assert_named(
        doctor(&lab, &[]),
        0,
        &[
            "is active",
            "is standby",
            "0 to mend, 0 that make runs fail",
        ],
    );
    lab.sh(&["kill", "nn2"]);
    assert_named(
        doctor(&lab, &[]),
        0,
        &[
            "warn  namenode",
            "the next failure of the other stops every run",
        ],
    );
}

#[test]
fn settings_of_spot_are_read_under_all_others() {
    let warehouse = Warehouse::empty();
    let conf = warehouse.path("spot.conf");
    let text = "#node configuration\nUINODE='node03'\nHUSER='/user/spotuser'\nDBNAME='SpotDB'\nHPATH=${HUSER}/${DSOURCE}\nTOL=1e-6\n";
    fs::write(&conf, text).unwrap();
    let ask = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_klieg"));
        command
            .args(["setup", "--print", "-D", "fs.defaultFS=hdfs://nn:8020"])
            .args(more);
        let output = command.env("SPOTCONF", &conf).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = ask(&[]);
    assert!(text.contains("EXISTS spotdb.flow ("), "{text}");
    assert!(
        text.contains("LOCATION 'hdfs://nn:8020/user/spotuser/flow/hive'"),
        "{text}"
    );
    assert!(ask(&["-D", "catalog.database=mine"]).contains("EXISTS mine.flow ("));
}
