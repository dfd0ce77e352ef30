//! Models that workers train: the bytes of models of one process, whatever dies on the way.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::cluster::Site;
use crate::cluster::text;
use crate::cluster::wait_for;

/// In the least memory that two workers of a slot take.
const ON_WORKERS: [&str; 6] = [
    "--cluster",
    "local:2",
    "-D",
    "memory=416MiB",
    "-D",
    "cluster.train_from=1",
];
const MODELS: [&str; 4] = ["-D", "suspicious.models=3", "-D", "suspicious.topics=7"];

#[test]
fn workers_train_the_models_of_one_process() {
    let site = Site::new();
    for point in [
        "before a task: fold documents in",
        "after a task: fold documents in",
        "after a task: score pairs",
    ] {
        let once = site.path("once");
        drop(fs::remove_file(&once));
        let mut run = site.run(&ON_WORKERS);
        run.env("KLIEG_KILL_AT", point).env("KLIEG_ONCE", &once);
        let told = site.run_same(&mut run);
        assert!(once.try_exists().unwrap(), "nobody came to {point}: {told}");
        assert!(
            told.contains("training: what a plan did is thrown away"),
            "{told}"
        );
    }
    // Several at the same time, in an order that nobody knows.
    let local = site.run(&MODELS).output().unwrap();
    assert_eq!(local.status.code(), Some(0), "{}", text(&local).1);
    let wanted = site.warehouse.published();
    site.clear();
    let args = [&ON_WORKERS[..], &MODELS, &["--output", "json"]].concat();
    let output = site.run(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
    assert!(site.warehouse.published() == wanted);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let work = &result["days"][0]["outcome"]["steps"][1]["report"]["work"];
    assert_eq!(work[1]["plan"], "training", "{work}");
    for (stage, name) in ["fold documents in", "score pairs"].iter().enumerate() {
        assert_eq!(work[1]["stages"][stage]["work"], *name, "{work}");
    }
}

#[test]
fn status_shows_the_stages_of_all_plans() {
    let site = Site::new();
    let go = site.path("go");
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: fold documents in"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
    ];
    let _workers = ["w1", "w2"].map(|name| site.worker(name, &[], &waiting));
    let pool = ["--cluster", "p", "--min-workers", "2"];
    let run = site
        .run(&[&pool[..], &ON_WORKERS[2..], &MODELS].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("two models that train", || {
        let told = text(&site.klieg(&["status"], "work").output().unwrap()).1;
        told.matches("(fold documents in): 0 of 1 tasks done, 1 running")
            .count()
            == 2
    });
    fs::write(&go, "").unwrap();
    let (code, told) = text(&run.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
}
