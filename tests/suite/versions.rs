//! `layout: versioned`, as Spark reads it through the metastore.

use crate::kills::AGAIN;
use crate::kills::How;
use crate::kills::Site;
use crate::kills::wake;
use crate::support::lab::Lab;

const NOON: [&str; 4] = ["--date", "2016-07-08T12", "--steps", "ingest"];
const DATA: &str = "/user/spot/versions/versions/flow-20160708";

fn roll_back(site: &Site<'_>, partition: &str, to: &str) {
    let (code, told) = site.ask(&["rollback", partition, "--to", to]);
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn versions_change_places_in_the_metastore() {
    let Some(lab) = Lab::up(&["simple", "--hms"]) else {
        return;
    };
    let how = How {
        name: "versions",
        is_local: false,
        layout: "canonical",
        catalog: "metastore",
        late: "1230",
    };
    let mut site = Site::new(&lab, how);
    // From the canonical layout, and back to what it had.
    site.run_ok(&["--date", crate::kills::DAY]);
    let canonical = site.newest();
    let fewer = site.count("flow");
    let groups = site.count("flow_groups");
    site.set("layout=versioned");
    site.land_more();
    site.run_ok(&["--date", crate::kills::DAY]);
    let day = site.newest();
    let more = site.count("flow");
    assert!(more > fewer);
    assert!(site.count("flow_groups") >= groups);
    let own = lab.files("/user/spot/versions/flow/hive/y=2016");
    let names: Vec<_> = own
        .keys()
        .map(|path| path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["_SUCCESS"]);
    assert!(
        site.run_ok(&["--date", crate::kills::DAY])
            .contains("is up to date")
    );
    roll_back(&site, "flow/2016-07-08", &canonical);
    assert_eq!(site.count("flow"), fewer);
    assert_eq!(site.count("flow_groups"), groups);
    roll_back(&site, "flow/2016-07-08", &day);
    assert_eq!(site.count("flow"), more);

    an_hour_and_its_day(&site, &day, (fewer, more));
    old_versions_go(&site);
    for point in ["before the catalog", "before the journal"] {
        frozen_before(&site, point, fewer);
    }
    killed_versions_are_kept(&site, (fewer, more));

    // Not back to the canonical layout, and not without a metastore.
    site.set("layout=canonical");
    let (code, told) = site.run(&AGAIN);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("set layout: versioned"), "{told}");
    site.set("layout=versioned");
    site.set("catalog.kind=none");
    let (code, told) = site.run(&AGAIN);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("with catalog.kind metastore"), "{told}");
}

/// An hour alone, what the day had of it, and the hour again.
fn an_hour_and_its_day(site: &Site<'_>, day: &str, (fewer, more): (u64, u64)) {
    site.take_back();
    site.run_ok(&NOON);
    let hour = site.newest();
    // Flows of the hour before stay in the day.
    let partly = site.count("flow");
    assert!(partly < more && partly >= fewer);
    let (code, told) = site.ask(&["status"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("{partly}")), "{told}");
    roll_back(site, "flow/2016-07-08T12", day);
    assert_eq!(site.count("flow"), more);
    roll_back(site, "flow/2016-07-08T12", &hour);
    assert_eq!(site.count("flow"), partly);
    // The day takes the place of the hour; back, the hour is there again.
    site.run_ok(&AGAIN);
    assert_eq!(site.count("flow"), fewer);
    roll_back(site, "flow/2016-07-08", &hour);
    assert_eq!(site.count("flow"), partly);
    let top = site.ask(&["top", "flow", "--date", crate::kills::DAY]);
    assert_eq!(top.0, Some(0), "{}", top.1);
}

/// What nobody can go back to is removed; what Spark reads stays.
fn old_versions_go(site: &Site<'_>) {
    let rows = site.count("flow");
    let before = site.lab.files(DATA).len();
    let (code, told) = site.ask(&["gc", "--keep", "0s"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(site.lab.files(DATA).len() < before, "{told}");
    assert_eq!(site.count("flow"), rows);
    assert_eq!(site.lab.files("/user/spot/versions/.klieg/trash").len(), 0);
}

/// What a killed run has moved and not yet switched to is no rubbish.
fn killed_versions_are_kept(site: &Site<'_>, (fewer, more): (u64, u64)) {
    site.land_more();
    let mut command = site.lab.command();
    command.env("KLIEG_KILL_AT", "after the version of ingest");
    let killed = site.add_run(&mut command, &AGAIN).output().unwrap();
    assert_eq!(killed.status.code(), None);
    let (code, told) = site.ask(&["gc", "--keep", "0s"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(site.count("flow"), fewer);
    let (code, told) = site.ask(&["recover"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(site.count("flow"), more);
}

/// A run that wakes after another has published does not send readers back to its own version, nor does a run after it.
fn frozen_before(site: &Site<'_>, point: &str, fewer: u64) {
    site.land_more();
    let frozen = site.freeze(&AGAIN, point);
    site.take_back();
    let (code, told) = site.ask(&["unlock", "flow/2016-07-08", "--force"]);
    assert_eq!(code, Some(0), "{told}");
    let told = site.run_ok(&AGAIN);
    let is_begun = point != "before the journal";
    assert_eq!(told.contains("finished what run"), is_begun, "{told}");
    assert_eq!(site.count("flow"), fewer);
    let (code, told) = wake(frozen);
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("the lock was lost"), "{told}");
    assert_eq!(site.count("flow"), fewer);
    let told = site.run_ok(&AGAIN);
    assert!(!told.contains("finished what run"), "{told}");
    assert_eq!(site.count("flow"), fewer);
}
