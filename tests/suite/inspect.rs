//! `klieg inspect` as a user meets it.

use std::fs;

use crate::support::klieg;
use crate::support::klieg_stdout;
use crate::support::shared_data;

#[track_caller]
fn assert_fails(args: &[&str], code: i32, says: &[&str]) {
    let output = klieg(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "stdout is for data only");
    for part in says {
        assert!(stderr.contains(part), "{stderr:?} should say {part:?}");
    }
}

#[test]
fn missing_file_is_exit_3() {
    assert_fails(
        &["inspect", "no/such/file"],
        3,
        &["no/such/file", "No such file"],
    );
}

#[test]
fn directory_is_exit_3() {
    assert_fails(&["inspect", "src"], 3, &["src: not a regular file"]);
}

#[test]
fn other_file_is_exit_7_and_says_what_it_starts_with() {
    assert_fails(
        &["inspect", "LICENSE"],
        7,
        &["LICENSE: not an nfcapd file", "not 0xa50c"],
    );
}

#[test]
fn short_file_is_exit_7() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short");
    fs::write(&path, b"\x0c\xa5\x01\x00").unwrap();
    assert_fails(
        &["inspect", path.to_str().unwrap()],
        7,
        &["at byte 4: 4 bytes needed, 0 left"],
    );
}

#[test]
fn file_without_a_readable_record_is_exit_7() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    klieg_stdout(&[
        "synth",
        "--date",
        "2016-07-08",
        "--flows",
        "1",
        "--out",
        out,
    ]);
    let whole = fs::read(folder.path().join("flow/landing/nfcapd.201607081200")).unwrap();
    let path = folder.path().join("cut");
    fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    let path = path.to_str().unwrap();
    for form in ["table", "json", "csv"] {
        let output = klieg(&["inspect", "--output", form, path]);
        assert_eq!(output.status.code(), Some(7), "{form}");
    }
}

#[test]
fn wrong_option_is_exit_2_with_the_nearest_one() {
    assert_fails(&["inspect", "--recrods", "3", "x"], 2, &["--records"]);
    assert_fails(
        &["inspect", "-n", "some", "x"],
        2,
        &["`some` is neither a number nor `all`"],
    );
}

/// The sample's first block is damaged: its writer counted 39,584 flows.
#[test]
fn corrupt_file_shows_one_reject_and_the_disagreement() {
    let Some(path) = shared_data("nfcapd/nfcapd-corrupt") else {
        return;
    };
    let text = klieg_stdout(&["inspect", "--output", "json", path.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rejects = report["rejects"].as_array().unwrap();
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["offset"], 276);
    assert!(report["warning"].as_str().unwrap().contains("39584"));
}

#[test]
fn counts_agree_with_the_writer() {
    let Some(path) = shared_data("nfcapd/nfcapd-large-bz2") else {
        return;
    };
    let text = klieg_stdout(&[
        "inspect",
        "-n",
        "0",
        "--output",
        "json",
        path.to_str().unwrap(),
    ]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["flows"], 100_000);
    assert_eq!(report["warning"], serde_json::Value::Null);
    assert_eq!(report["rejected"].as_object().unwrap().len(), 0);
    assert!(report["exporters"].as_object().unwrap().len() > 1000);
}
