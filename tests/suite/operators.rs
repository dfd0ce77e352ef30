//! What operators do by hand, killed or frozen in the middle of it, and days that are empty: as Spark reads it through the metastore.

use std::process::Output;

use klieg::wire::nfcapd::Compression;
use klieg::wire::nfcapd::Encoder;

use crate::kills::AGAIN;
use crate::kills::DAY;
use crate::kills::How;
use crate::kills::INGEST;
use crate::kills::Site;
use crate::kills::wake;
use crate::support::lab::Lab;

const NOON: [&str; 4] = ["--date", "2016-07-08T12", "--steps", "ingest"];
const EMPTY_DAY: &str = "2016-07-20";
const PARTITION: &str = "flow/2016-07-08";

/// Points of a publication that has nothing to stage, and whether Spark reads the new rows there; none where it reads nothing.
fn points(layout: &str) -> Vec<(&'static str, Option<bool>)> {
    let moved = match layout {
        "versioned" => [
            ("after the version of ingest", Some(false)),
            ("after the state of versions", Some(false)),
            ("before the catalog", Some(false)),
        ],
        _ => [
            ("between the renames of ingest", None),
            ("after folder 0", Some(true)),
            ("before the catalog", Some(true)),
        ],
    };
    let begun = [
        ("before the journal", Some(false)),
        ("before a name in journal", Some(false)),
        ("after the journal", Some(false)),
    ];
    let told = [
        ("after the catalog", Some(true)),
        ("after _SUCCESS", Some(true)),
        ("after the record", Some(true)),
        ("after the journal is removed", Some(true)),
    ];
    [&begun[..], &moved, &told].concat()
}

fn killed(site: &Site<'_>, args: &[&str], point: &str) -> Output {
    let mut command = site.lab.command();
    command.env("KLIEG_KILL_AT", point).args(args);
    site.add_settings(&mut command).output().unwrap()
}

/// Goes back and forth between two runs, dies at each point, finishes it; the history knows what is there.
fn a_roll_back_that_dies(site: &Site<'_>, layout: &str) {
    site.run_ok(&INGEST);
    let first = (site.newest(), site.count("flow"));
    site.land_more();
    site.run_ok(&AGAIN);
    let second = (site.newest(), site.count("flow"));
    assert!(second.1 > first.1);
    let (mut now, mut other) = (&second, &first);
    for (point, reads_new) in points(layout) {
        let what = format!("{layout}: rollback killed {point}");
        let back = ["rollback", PARTITION, "--to", &other.0];
        let output = killed(site, &back, point);
        assert_eq!(output.status.code(), None, "{what}: it did not die");
        let wanted = match reads_new {
            Some(true) => other.1,
            Some(false) => now.1,
            None => 0,
        };
        assert_eq!(site.count("flow"), wanted, "{what}");
        let (code, told) = site.ask(&["recover"]);
        assert_eq!(code, Some(0), "{what}: {told}");
        let (code, told) = site.ask(&back);
        assert_eq!(code, Some(0), "{what}: {told}");
        assert_eq!(site.count("flow"), other.1, "{what}: repaired");
        let (code, told) = site.ask(&back);
        assert_eq!(code, Some(0), "{what}: {told}");
        assert!(told.contains("is as run"), "{what}: {told}");
        std::mem::swap(&mut now, &mut other);
    }
}

/// An hour alone: what is missing between the renames is that hour.
fn an_hour_that_dies(site: &Site<'_>, layout: &str) {
    let publish = |version: usize| {
        match version {
            0 => site.take_back(),
            _ => site.land_more(),
        }
        [&NOON[..], &["--reprocess", "all"]].concat()
    };
    let rows = [0, 1].map(|version| {
        site.run_ok(&publish(version));
        site.count("flow")
    });
    assert!(rows[1] > rows[0]);
    for (index, (point, reads_new)) in points(layout).into_iter().enumerate() {
        let point = point.replace("of ingest", "of ingest-h12");
        let what = format!("{layout}: an hour killed {point}");
        let (old, new) = (rows[(index + 1) % 2], rows[index % 2]);
        let args = publish(index % 2);
        let mut command = site.lab.command();
        command.env("KLIEG_KILL_AT", &point);
        let output = site.add_run(&mut command, &args).output().unwrap();
        assert_eq!(output.status.code(), None, "{what}: it did not die");
        let found = site.count("flow");
        match reads_new {
            Some(is_new) => assert_eq!(found, if is_new { new } else { old }, "{what}"),
            None => assert!(found < old.min(new), "{what}: {found}"),
        }
        site.run_ok(&args);
        assert_eq!(site.count("flow"), new, "{what}: repaired");
    }
}

/// A day whose raw file has no flows: a folder without rows, not a missing one.
fn an_empty_day(site: &Site<'_>) {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let encoder = Encoder::try_new(empty.as_file(), Compression::None, &[]).unwrap();
    encoder.finish(1_469_016_000).unwrap();
    site.land_as(empty.path(), "201607201200");
    site.run_ok(&["--date", EMPTY_DAY]);
    for table in ["flow", "flow_scores", "flow_groups"] {
        assert_eq!(site.count_on(table, 20), 0, "{table}");
    }
    let day = format!("/user/spot/{}/flow/hive/y=2016/m=7/d=20", site.how.name);
    let files = site.lab.files(&day);
    assert!(files.contains_key(&format!("{day}/_SUCCESS")), "{files:?}");
    let told = site.run_ok(&["--date", EMPTY_DAY]);
    assert!(told.contains("is up to date"), "{told}");
}

/// An adoption that wakes up after another run has published the day changes nothing, and nothing is left of it.
fn an_adoption_that_freezes(site: &Site<'_>) {
    let day = format!("/user/spot/{}/flow/hive/y=2016/m=7/d=8", site.how.name);
    for name in ["_manifest.json", "_SUCCESS"] {
        site.lab
            .sh(&["fs", "-rm", "-skipTrash", &format!("{day}/{name}")]);
    }
    let before = site.count("flow");
    let adopt = ["--date", DAY, "--steps", "ingest", "--adopt"];
    let frozen = site.freeze(&adopt, "before the journal");
    let (code, told) = site.ask(&["unlock", PARTITION, "--force"]);
    assert_eq!(code, Some(0), "{told}");
    site.take_back();
    site.run_ok(&AGAIN);
    let after = site.count("flow");
    assert!(after < before, "{after} {before}");
    let published = site.lab.files(&day);
    let (code, told) = wake(frozen);
    assert_eq!(code, Some(4), "{told}");
    assert_eq!(site.count("flow"), after);
    assert_eq!(site.lab.files(&day), published);
    assert!(site.run_ok(&INGEST).contains("is up to date"));
    let (code, told) = site.ask(&["recover"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("nothing"), "{told}");
}

#[test]
fn what_operators_do_by_hand_may_die_or_freeze() {
    let Some(lab) = Lab::up(&["simple", "--hms"]) else {
        return;
    };
    for layout in ["canonical", "versioned"] {
        let how = How {
            name: layout,
            is_local: false,
            layout,
            catalog: "metastore",
            late: "1230",
        };
        let site = Site::new(&lab, how);
        an_empty_day(&site);
        a_roll_back_that_dies(&site, layout);
        an_hour_that_dies(&site, layout);
        if layout == "canonical" {
            site.land_more();
            site.run_ok(&AGAIN);
            an_adoption_that_freezes(&site);
        }
    }
}
