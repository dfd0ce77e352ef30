//! `klieg demo`, as README has it, and on workers.

use std::process::Command;

/// What a demo of the smallest day prints.
fn demo(args: &[&str]) -> String {
    let out = tempfile::tempdir().unwrap();
    let mut klieg = Command::new(env!("CARGO_BIN_EXE_klieg"));
    klieg.args(["demo", "--flows", "100000", "-n", "5", "--out"]);
    let output = klieg.arg(out.path()).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.contains("2 workers"), !args.is_empty(), "{stderr}");
    let told = String::from_utf8(output.stdout).unwrap();
    told.replace(out.path().to_str().unwrap(), "OUT")
}

#[test]
fn the_demo_finds_the_same_on_workers() {
    let here = demo(&[]);
    assert!(here.contains("attacks"), "{here}");
    assert_eq!(demo(&["--cluster", "local:2"]), here);
}
