//! A warehouse on a real HDFS: the same bytes as on this machine, and what each fault of a cluster ends in.

use std::io::Write as _;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use crate::run::Warehouse;
use crate::support::lab::Lab;
use crate::support::lab::add_run;
use crate::support::lab::run_in;

const DAY: &str = "2016-07-08";
const INGEST: [&str; 4] = ["--date", DAY, "--steps", "ingest"];
/// `dfs.heartbeat.interval` of the lab.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Time-outs that make a test quick: a cluster that does not answer ends a run after so many seconds.
const IMPATIENT: [&str; 6] = [
    "-D",
    "hadoop.call_timeout=2s",
    "-D",
    "hadoop.data_timeout=10s",
    "-D",
    "hadoop.patience=5s",
];

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, says: &[&str]) {
    let stderr = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in says {
        assert!(stderr.contains(part), "{part:?} in {stderr}");
    }
}

/// Table files by hour, as Hadoop's own client reads them.
fn table(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for hour in 0..24 {
        let folder = folder.join(format!("y=2016/m=7/d=8/h={hour}"));
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            found.push((format!("{hour}"), std::fs::read(path).unwrap()));
        }
    }
    found
}

/// A lab with a landed day in the warehouse `name`, and the same on this machine.
fn with_day(lab: &Lab, name: &str) -> Warehouse {
    let local = Warehouse::with_days(&[DAY], 6_000);
    lab.land(name, &local.path("flow/landing"));
    local
}

#[test]
fn hdfs_holds_the_bytes_of_this_machine_and_says_what_is_wrong() {
    let Some(lab) = Lab::up_with(&["simple"], &[("DNS", "3")]) else {
        return;
    };
    let local = with_day(&lab, "day");
    equal_bytes(&lab, &local);
    mounted_and_kept_in_a_snapshot(&lab);
    forbidden_places(&lab);
    safe_mode(&lab);
    quota(&lab, &local);
    open_files(&lab);
    wrong_addresses(&lab);
    silent_namenode(&lab);
    dead_datanode(&lab);
    datanode_that_dies_in_the_middle(&lab);
    answer_that_is_lost(&lab);
    table_file_that_is_open(&lab);
    permissions_of_others(&lab);
    anybody_is_let_in(&lab);
}

/// The same warehouse through viewfs, published again while a snapshot holds the old one.
fn mounted_and_kept_in_a_snapshot(lab: &Lab) {
    lab.sh(&["admin", "-allowSnapshot", "/user/spot/day"]);
    lab.sh(&["fs", "-createSnapshot", "/user/spot/day", "before"]);
    let url = &lab.environment["HDFS_URL"];
    let mount = |link: &str, to: &str| format!("fs.viewfs.mounttable.site.{link}={url}{to}");
    let (data, rest) = (
        mount("link./user/spot/day", "/user/spot/day"),
        mount("linkFallback", "/"),
    );
    let args = [
        &INGEST[..],
        &["--reprocess", "all", "-D", &data, "-D", &rest],
    ]
    .concat();
    let output = run_in(
        &mut lab.command(),
        "warehouse=viewfs://site/user/spot/day",
        &args,
    );
    assert_ends(
        &output,
        0,
        &["files published: 24 in viewfs://site/user/spot/day"],
    );
    let day = "flow/hive/y=2016/m=7/d=8";
    let now = lab.files(&format!("/user/spot/day/{day}"));
    let then = lab.files(&format!("/user/spot/day/.snapshot/before/{day}"));
    assert_eq!((now.len(), then.len()), (26, 26));
    lab.sh(&["fs", "-deleteSnapshot", "/user/spot/day", "before"]);
    lab.sh(&["admin", "-disallowSnapshot", "/user/spot/day"]);
}

fn equal_bytes(lab: &Lab, local: &Warehouse) {
    let output = lab.run("day", &["--date", DAY]);
    assert_ends(&output, 0, &["files published: 24 in hdfs://"]);
    let here = format!("warehouse={}", local.path("").display());
    let mut klieg = Command::new(env!("CARGO_BIN_EXE_klieg"));
    assert_ends(&run_in(&mut klieg, &here, &["--date", DAY]), 0, &[]);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("hive");
    lab.sh(&[
        "fs",
        "-get",
        "/user/spot/day/flow/hive",
        copy.to_str().unwrap(),
    ]);
    let there = table(&copy);
    assert_eq!(there.len(), 24);
    assert!(there == table(&local.path("flow/hive")), "other bytes");
    let top = |warehouse: &str| {
        let args = ["top", "flow", "--date", DAY, "-n", "500", "--output", "csv"];
        let output = lab.command().args(args).args(["-D", warehouse]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(top(&lab.warehouse("day")), top(&here));
    let output = lab.run("day", &["--date", DAY]);
    assert_ends(&output, 0, &["ingest: 2016-07-08 is up to date"]);
    // A name with variables, a blank in a list, an include: as Hadoop's own clients read them.
    let conf = folder.path().join("conf");
    std::fs::create_dir(&conf).unwrap();
    let site = format!(
        "<configuration xmlns:xi='http://www.w3.org/2001/XInclude'><property><name>host</name><value>localhost</value></property>\
         <property><name>fs.defaultFS</name><value> hdfs://${{host}}:${{env.PORT}} </value><final>true</final></property>\
         <xi:include href='{}/hdfs-site.xml'/></configuration>",
        lab.environment["HADOOP_CONF_DIR"]
    );
    std::fs::write(conf.join("core-site.xml"), site).unwrap();
    let port = lab.environment["HDFS_URL"].rsplit(':').next().unwrap();
    let status = lab
        .command()
        .env("HADOOP_CONF_DIR", &conf)
        .env("PORT", port)
        .args(["status", "-D", "warehouse=hdfs:///user/spot/day"])
        .output()
        .unwrap();
    assert_ends(&status, 0, &[]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("1 days published"));
    // Hadoop's own options, with one dash as it writes them.
    let status = lab
        .command()
        .env("HADOOP_CONF_DIR", "/nonexistent")
        .args(["status", "-fs", &lab.environment["HDFS_URL"]])
        .args(["-D", "warehouse=hdfs:///user/spot/day"])
        .output()
        .unwrap();
    assert_ends(&status, 0, &[]);
    let none = lab
        .command()
        .env("HADOOP_CONF_DIR", "/nonexistent")
        .args(["status", "-D", "warehouse=hdfs:///user/spot/day"])
        .output()
        .unwrap();
    assert_ends(&none, 2, &["names no NameNode", "HADOOP_CONF_DIR"]);
}

fn forbidden_places(lab: &Lab) {
    let landing = "/user/spot/day/flow/landing";
    lab.sh(&["fs", "-chown", "hdfs", landing]);
    lab.sh(&["fs", "-chmod", "700", landing]);
    let says = ["Permission denied: user=spot", landing];
    assert_ends(&lab.run("day", &INGEST), 5, &says);
    let plan = lab
        .command()
        .args([
            "plan",
            concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml"),
        ])
        .args(["--date", DAY, "-D", &lab.warehouse("day")])
        .output()
        .unwrap();
    assert_ends(&plan, 5, &says);
    lab.sh(&["fs", "-chmod", "755", landing]);
    // Raw files can be read now, and the table cannot be written.
    let table = "/user/spot/day/flow/hive/y=2016/m=7";
    lab.sh(&["fs", "-chown", "hdfs", table]);
    lab.sh(&["fs", "-chmod", "755", table]);
    let again = [&INGEST[..], &["--reprocess", "all"]].concat();
    let output = lab.run("day", &again);
    assert_ends(&output, 8, &["Permission denied: user=spot", table]);
    lab.sh(&["fs", "-chown", "-R", "spot", table]);
    let recover = lab
        .command()
        .args(["recover", "-D", &lab.warehouse("day")])
        .output()
        .unwrap();
    assert_ends(&recover, 0, &[]);
    assert!(String::from_utf8_lossy(&recover.stdout).contains("finished what"));
    assert_ends(&lab.run("day", &INGEST), 0, &["is up to date"]);
}

fn safe_mode(lab: &Lab) {
    lab.sh(&["admin", "-safemode", "enter"]);
    let args = [&INGEST[..], &["--reprocess", "all"], &IMPATIENT].concat();
    assert_ends(&lab.run("day", &args), 6, &["safe mode"]);
    lab.sh(&["admin", "-safemode", "leave"]);
}

fn quota(lab: &Lab, local: &Warehouse) {
    lab.land("small", &local.path("flow/landing"));
    lab.sh(&["admin", "-setSpaceQuota", "14m", "/user/spot/small"]);
    let output = lab.run("small", &INGEST);
    assert_ends(&output, 1, &["quota", "nothing was published"]);
    let left = lab.files("/user/spot/small/flow/hive");
    assert!(left.is_empty(), "{left:?}");
    lab.sh(&["admin", "-clrSpaceQuota", "/user/spot/small"]);
    assert_ends(&lab.run("small", &INGEST), 0, &[]);
}

/// Somebody who appends to a file and does not close it.
fn appending(lab: &Lab, path: &str, bytes: &[u8]) -> (Child, ChildStdin) {
    let mut writer = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab/lab.sh"))
        .args(["cli", "org.apache.hadoop.fs.FsShell"])
        .args(["-Ddfs.blocksize=1048576", "-appendToFile", "-", path])
        .envs(&lab.environment)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = writer.stdin.take().unwrap();
    pipe.write_all(bytes).unwrap();
    pipe.flush().unwrap();
    (writer, pipe)
}

/// A file whose writer stands between two blocks, and one that has not closed its first.
fn open_files(lab: &Lab) {
    let path = "/user/spot/small/flow/landing/nfcapd.201607081202";
    let (mut writer, mut pipe) = appending(lab, path, &[1; 1000]);
    wait_for("an empty file", || {
        lab.files("/user/spot/small/flow/landing").get(path) == Some(&0)
    });
    // Without a byte to read it is left out, and said so.
    let output = lab.run("small", &INGEST);
    assert_ends(&output, 0, &["nfcapd.201607081202 is still being written"]);
    pipe.write_all(&vec![1; 2_600_000]).unwrap();
    pipe.flush().unwrap();
    wait_for("two blocks", || {
        lab.files("/user/spot/small/flow/landing")[path] >= 1 << 20
    });
    let output = lab.run("small", &INGEST);
    assert_ends(&output, 3, &["nfcapd.201607081202", "still being written"]);
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let mut plan = lab.command();
    plan.args(["plan", job, "--date", DAY, "-D", &lab.warehouse("small")]);
    let plan = String::from_utf8(plan.output().unwrap().stdout).unwrap();
    let says = format!("not ready: {path} (");
    assert!(plan.contains(&says), "{plan}");
    drop(pipe);
    assert!(writer.wait().unwrap().success());
    // It is complete now, and no nfcapd file.
    let output = lab.run("small", &INGEST);
    assert_ends(&output, 7, &["nfcapd.201607081202"]);
    lab.sh(&["fs", "-rm", "-skipTrash", path]);
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn wrong_addresses(lab: &Lab) {
    let args = [&INGEST[..], &IMPATIENT].concat();
    let http = lab.environment["NN_HTTP"].replace("http", "hdfs");
    for (address, says) in [
        ("hdfs://localhost:1", "nothing listens there"),
        (http.as_str(), "RPC port"),
        ("hdfs://no-such-host.invalid:8020", "lookup"),
    ] {
        let start = Instant::now();
        let warehouse = format!("warehouse={address}/user/spot/day");
        let output = run_in(&mut lab.command(), &warehouse, &args);
        assert_ends(&output, 6, &[says]);
        assert!(start.elapsed() < Duration::from_secs(20), "{address}");
    }
}

/// What listens there takes no word: sometimes it is ours that finds the pipe broken.
#[test]
fn a_server_that_hangs_up_is_a_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for _ in 0..20 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klieg"));
        command.env("HADOOP_CONF_DIR", "/nonexistent");
        let warehouse = format!("warehouse=hdfs://{address}/user/spot");
        let quick = ["-D", "hadoop.patience=1ms", "--date", DAY];
        let output = run_in(&mut command, &warehouse, &quick);
        assert_ends(&output, 6, &["RPC port"]);
    }
}

fn silent_namenode(lab: &Lab) {
    lab.sh(&["stop", "nn"]);
    let start = Instant::now();
    let output = lab.run("day", &[&INGEST[..], &IMPATIENT].concat());
    let seconds = start.elapsed();
    lab.sh(&["cont", "nn"]);
    assert_ends(&output, 6, &["gave no answer to `stat` in 2 s"]);
    assert!(seconds < Duration::from_secs(15), "{seconds:?}");
}

/// Starts a DataNode, and waits until it has done what the NameNode kept for it: to recover the lock that was taken while it was gone.
/// Where that meets a run that writes the lock anew, it fails there and leaves the replica to a thread that never ends.
fn start_again(lab: &Lab, node: &str) {
    let log = Path::new(&lab.environment["LAB"]).join(format!("log/{node}.log"));
    let registered = || {
        let text = std::fs::read(&log).unwrap();
        let text = String::from_utf8_lossy(&text);
        text.matches("successfully registered with NN").count()
    };
    let before = registered();
    lab.sh(&["start", node]);
    wait_for("a DataNode", || registered() > before);
    std::thread::sleep(3 * HEARTBEAT);
}

/// The NameNode still offers a DataNode that is gone: files are written again until all are there.
fn dead_datanode(lab: &Lab) {
    lab.sh(&["kill", "dn2"]);
    let args = [&INGEST[..], &["--reprocess", "all"]].concat();
    let output = lab.run("day", &args);
    start_again(lab, "dn2");
    assert_ends(&output, 0, &["files published: 24"]);
    assert_eq!(
        lab.files("/user/spot/day/flow/hive/y=2016/m=7/d=8").len(),
        26
    );
}

/// All DataNodes are in the pipeline, one dies while a file is on its way. What the site says about that, and what makes clients
/// fail or hang, does not hold.
fn datanode_that_dies_in_the_middle(lab: &Lab) {
    let site = [
        "-D",
        "dfs.replication=3",
        "-D",
        "dfs.client.block.write.replace-datanode-on-failure.policy=DEFAULT",
        "-D",
        "dfs.client.block.write.replace-datanode-on-failure.best-effort=true",
        "--reprocess",
        "all",
    ];
    let child = frozen_with(lab, "day", "in the middle of a file of parquet", &site);
    lab.sh(&["kill", "dn1"]);
    let output = wake(child);
    start_again(lab, "dn1");
    assert_ends(&output, 0, &["files published: 24"]);
    assert_ends(&lab.run("day", &INGEST), 0, &["is up to date"]);
}

/// The NameNode falls silent when it is asked for the first rename, which it does when it wakes: the answer never comes.
fn answer_that_is_lost(lab: &Lab) {
    let patient = ["-D", "hadoop.call_timeout=2s", "-D", "hadoop.patience=30s"];
    let again = [&patient[..], &["--reprocess", "all"]].concat();
    let child = frozen_with(lab, "day", "before a folder goes to the trash", &again);
    lab.sh(&["stop", "nn"]);
    go_on(&child);
    std::thread::sleep(Duration::from_secs(3));
    lab.sh(&["cont", "nn"]);
    let output = child.wait_with_output().unwrap();
    assert_ends(&output, 0, &["files published: 24"]);
    let files = lab.files("/user/spot/day/flow/hive/y=2016/m=7/d=8");
    assert_eq!(files.len(), 26);
    assert_ends(&lab.run("day", &INGEST), 0, &["is up to date"]);
}

/// A file of the table to which somebody appends is refused where a plan reads it, and never read short.
fn table_file_that_is_open(lab: &Lab) {
    let files = lab.files("/user/spot/day/flow/hive/y=2016/m=7/d=8/h=12");
    let path = files.keys().next().unwrap();
    let (mut writer, pipe) = appending(lab, path, &[1; 1000]);
    let args = ["--date", DAY, "--steps", "suspicious", "--reprocess", "all"];
    wait_for("a file that is open", || {
        let output = lab.run("day", &args);
        let says = "is shorter than it was, or still being written";
        output.status.code() == Some(1) && stderr(&output).contains(says)
    });
    drop(pipe);
    assert!(writer.wait().unwrap().success());
    let again = [&INGEST[..], &["--reprocess", "all"]].concat();
    assert_ends(&lab.run("day", &again), 0, &[]);
}

/// A default ACL for another user is not cut down by the permissions of new files.
fn permissions_of_others(lab: &Lab) {
    let parent = "/user/spot/day/flow/hive/y=2016/m=7";
    lab.sh(&[
        "fs",
        "-setfacl",
        "-R",
        "-m",
        "default:user:impala:rwx",
        "/user/spot/day",
    ]);
    let again = [&INGEST[..], &["--reprocess", "all"]].concat();
    assert_ends(&lab.run("day", &again), 0, &[]);
    let files = lab.files(&format!("{parent}/d=8/h=12"));
    let acl = lab.sh(&["fs", "-getfacl", files.keys().next().unwrap()]);
    assert!(acl.contains("user:impala:rwx\t#effective:rw-"), "{acl}");
    assert!(acl.contains("mask::rw-"), "{acl}");
}

/// Kerberos is configured here and not there: the client would go on without it.
fn anybody_is_let_in(lab: &Lab) {
    let mut doctor = lab.command();
    doctor.args(["doctor", "-D", &lab.warehouse("day")]);
    doctor.args(["-D", "hadoop.security.authentication=kerberos"]);
    let output = doctor.output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("lets anybody in without a ticket"), "{told}");
}

/// A run that freezes at a point of its publication, as in a paused virtual machine.
fn frozen(lab: &Lab, name: &str, point: &str) -> Child {
    frozen_with(lab, name, point, &["--reprocess", "all"])
}

fn frozen_with(lab: &Lab, name: &str, point: &str, more: &[&str]) -> Child {
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let child = lab
        .command()
        .env("KLIEG_STOP_AT", point)
        .args(["run", job, "-D", &lab.warehouse(name)])
        .args(INGEST)
        .args(more)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until_frozen(&child);
    child
}

fn wait_until_frozen(child: &Child) {
    let stat = format!("/proc/{}/stat", child.id());
    wait_for("a frozen run", || {
        let stat = std::fs::read_to_string(&stat).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    });
}

fn wake(child: Child) -> Output {
    go_on(&child);
    child.wait_with_output().unwrap()
}

fn go_on(child: &Child) {
    let pid = child.id().to_string();
    let woken = Command::new("kill").args(["-CONT", &pid]).status();
    assert!(woken.unwrap().success());
}

#[test]
fn a_frozen_run_on_hdfs_publishes_nothing_when_it_wakes() {
    let Some(lab) = Lab::up(&["simple"]) else {
        return;
    };
    with_day(&lab, "day");
    // Its lock is taken by an operator.
    let child = frozen(&lab, "day", "before the fence");
    let output = lab.run("day", &INGEST);
    assert_ends(&output, 4, &["locked by a live run", "process"]);
    let unlock = |force: &[&str]| {
        let args = ["unlock", "flow/2016-07-08", "-D", &lab.warehouse("day")];
        lab.command().args(args).args(force).output().unwrap()
    };
    assert_ends(&unlock(&[]), 2, &["--force takes it"]);
    assert_ends(&unlock(&["--force"]), 0, &[]);
    assert_ends(&lab.run("day", &INGEST), 0, &["files published: 24"]);
    let published = lab.files("/user/spot/day/flow/hive");
    assert_ends(
        &wake(child),
        4,
        &["the lock was lost", "nothing was published"],
    );
    assert_eq!(lab.files("/user/spot/day/flow/hive"), published);

    // One run is busy for longer than a lease lasts: it stays the owner.
    with_day(&lab, "busy");
    let folder = tempfile::tempdir().unwrap();
    let go_on = folder.path().join("go on");
    let mut busy = lab.command();
    busy.env("KLIEG_WAIT_AT", "before the fence");
    busy.env("KLIEG_WAIT_FOR", &go_on);
    busy.stderr(Stdio::piped()).stdout(Stdio::null());
    let busy = add_run(&mut busy, &lab.warehouse("busy"), &INGEST).spawn();
    let busy = busy.unwrap();
    // Another freezes: its lease runs out, and the next run takes over.
    with_day(&lab, "lease");
    let child = frozen(&lab, "lease", "before the fence");
    let start = Instant::now();
    let output = loop {
        let output = lab.run("lease", &INGEST);
        if output.status.code() != Some(4) {
            break output;
        }
        assert!(
            start.elapsed() < Duration::from_secs(150),
            "no lease ran out"
        );
        std::thread::sleep(Duration::from_secs(3));
    };
    assert_ends(&output, 0, &["files published: 24"]);
    let published = lab.files("/user/spot/lease/flow/hive");
    assert_ends(
        &wake(child),
        4,
        &["the lock was lost", "nothing was published"],
    );
    assert_eq!(lab.files("/user/spot/lease/flow/hive"), published);
    assert_ends(&lab.run("busy", &INGEST), 4, &["locked by a live run"]);
    std::fs::write(&go_on, "").unwrap();
    let output = busy.wait_with_output().unwrap();
    assert_ends(&output, 0, &["files published: 24"]);

    frozen_in_the_middle(&lab, &unlock);
    woken_beside_the_new_owner(&lab, &unlock);
}

/// A run that wakes while the one that took over is at work leaves alone what that one has staged.
fn woken_beside_the_new_owner(lab: &Lab, unlock: &dyn Fn(&[&str]) -> Output) {
    let child = frozen(lab, "day", "after staging");
    assert_ends(&unlock(&["--force"]), 0, &[]);
    let folder = tempfile::tempdir().unwrap();
    let go_on = folder.path().join("go on");
    let mut owner = lab.command();
    owner.env("KLIEG_WAIT_AT", "before the fence");
    owner.env("KLIEG_WAIT_FOR", &go_on);
    owner.stderr(Stdio::piped()).stdout(Stdio::null());
    let again = [&INGEST[..], &["--reprocess", "all"]].concat();
    let owner = add_run(&mut owner, &lab.warehouse("day"), &again).spawn();
    let owner = owner.unwrap();
    let staged = "/user/spot/day/.klieg/runs/flow-20160708";
    wait_for("what the owner stages", || {
        let files = lab.files(staged);
        let manifests = files.keys().filter(|path| path.ends_with("_manifest.json"));
        files.len() == 25 && manifests.count() == 1
    });
    assert_ends(&wake(child), 4, &["the lock was lost"]);
    assert_eq!(lab.files(staged).len(), 25);
    std::fs::write(&go_on, "").unwrap();
    let output = owner.wait_with_output().unwrap();
    assert_ends(&output, 0, &["files published: 24"]);
}

/// Whoever takes over finishes what was begun, then publishes its own; the run that wakes touches neither.
fn frozen_in_the_middle(lab: &Lab, unlock: &dyn Fn(&[&str]) -> Output) {
    for point in [
        "before the journal",
        "after the journal",
        "between the renames of ingest",
        "after folder 0",
    ] {
        let child = frozen(lab, "day", point);
        assert_ends(&unlock(&["--force"]), 0, &[]);
        let again = [&INGEST[..], &["--reprocess", "all"]].concat();
        let taker = lab.run("day", &again);
        assert_ends(&taker, 0, &["files published: 24"]);
        let is_begun = point != "before the journal";
        assert_eq!(stderr(&taker).contains("finished what run"), is_begun);
        let published = lab.files("/user/spot/day/flow/hive");
        let told = [
            "the lock was lost",
            "the run that has it now finishes what was begun",
        ];
        assert_ends(&wake(child), 4, &told);
        assert_eq!(lab.files("/user/spot/day/flow/hive"), published, "{point}");
        let next = lab.run("day", &again);
        assert_ends(&next, 0, &["files published: 24"]);
        assert!(!stderr(&next).contains("finished what run"));
        assert_eq!(
            lab.files("/user/spot/day/.klieg/journal").len(),
            0,
            "{point}"
        );
    }
}

/// A name service that clients are told of beside ours, none of whose NameNodes answers.
const ANOTHER_SERVICE: [&str; 8] = [
    "-D",
    "dfs.nameservices=far, labns",
    "-D",
    "dfs.ha.namenodes.far=f1, f2",
    "-D",
    "dfs.namenode.rpc-address.far.f1=localhost:1",
    "-D",
    "dfs.namenode.rpc-address.far.f2=localhost:2",
];

#[test]
fn a_run_goes_through_a_failover() {
    let Some(lab) = Lab::up_with(&["secure-ha", "--hms"], &[("AES", "1")]) else {
        return;
    };
    with_day(&lab, "day");
    let told = ["-D", "catalog.kind=metastore"];
    let ask = |command: &str| {
        let mut klieg = lab.command();
        klieg
            .args([command, "-D", &lab.warehouse("day")])
            .args(told);
        let output = klieg.output().unwrap();
        assert_ends(&output, 0, &[]);
        String::from_utf8(output.stdout).unwrap()
    };
    ask("setup");
    let doctor = ask("doctor");
    let is_green = !doctor.contains("FAIL") && !doctor.replace("warn  speed", "").contains("warn");
    assert!(is_green && doctor.contains("is standby"), "{doctor}");
    // The active one is stopped, not killed: it never answers.
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let mut run = lab.command();
    run.env("KLIEG_STOP_AT", "in the middle of a file of parquet");
    run.args(["run", job, "--date", DAY, "-D", &lab.warehouse("day")]);
    run.args([
        "-D",
        "hadoop.call_timeout=5s",
        "-D",
        "hadoop.data_timeout=10s",
    ]);
    run.args(["-D", "suspicious.model=none"]);
    run.args(ANOTHER_SERVICE).args(told);
    run.stderr(Stdio::piped()).stdout(Stdio::null());
    let child = run.spawn().unwrap();
    wait_until_frozen(&child);
    lab.sh(&["stop", "nn1"]);
    lab.sh(&["failover", "nn2"]);
    go_on(&child);
    // The metastore has a client of its own, which stays with a NameNode that hangs until that is dead.
    std::thread::sleep(Duration::from_secs(12));
    lab.sh(&["kill", "nn1"]);
    let output = child.wait_with_output().unwrap();
    assert_ends(&output, 0, &["files published: 24 in hdfs://labns"]);
    let question = "SELECT count(*) AS n FROM spot.flow_groups WHERE y=2016 AND m=7 AND d=8";
    let rows = lab.spark(&[question.to_owned()]);
    assert!(rows[0]["n"].as_u64().unwrap() > 0);
    // It is dead now: the other one is asked.
    let args = [&INGEST[..], &["--reprocess", "all"]].concat();
    assert_ends(&lab.run("day", &args), 0, &["files published: 24"]);
}

/// Kerberos refuses more than five minutes.
fn clocks_that_differ(lab: &Lab) {
    let program = lab.command().get_program().to_owned();
    let late = |args: &[&str]| {
        let mut command = Command::new("faketime");
        command.args(["-f", "+11m"]).arg(&program).args(args);
        command.args(["-D", &lab.warehouse("day")]).args(IMPATIENT);
        command
            .envs(&lab.environment)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.output().unwrap()
    };
    let job = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/flow.yaml");
    let run = [&["run", job][..], &INGEST].concat();
    let says = "do the clocks differ by more than five minutes";
    assert_ends(&late(&run), 5, &["Kerberos", says]);
    let doctor = late(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(5));
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(
        told.contains("FAIL  namenode") && told.contains(says),
        "{told}"
    );
}

/// A ticket that ends within a long run; another protection of data than that of the cluster is none of its concern.
fn doctor_names_what_kerberos_lacks(lab: &Lab) {
    let doctor = |cache: &str, more: &[&str]| {
        let mut command = lab.command();
        command.env("KRB5CCNAME", cache);
        command.args(["doctor", "-D", &lab.warehouse("day")]);
        let output = command.args(IMPATIENT).args(more).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), told)
    };
    let cache = ticket(lab, "soon", "20m");
    let (code, told) = doctor(&cache, &[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("warn  ticket") && told.contains("long ranges outlive it"),
        "{told}"
    );
    let protection = "dfs.data.transfer.protection=authentication";
    // Client and DataNode agree upon that of the cluster.
    let (code, told) = doctor(&lab.environment["KRB5CCNAME"], &["-D", protection]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("data authentication") && told.contains("ok    lock"),
        "{told}"
    );
}

/// A cache with a ticket that lives for a while.
fn ticket(lab: &Lab, name: &str, life: &str) -> String {
    let cache = format!("{}/{name}", lab.environment["LAB"]);
    let keytab = &lab.environment["KEYTAB"];
    let kinit = Command::new("kinit")
        .args(["-l", life, "-c", &cache, "-kt", keytab, "spot"])
        .envs(&lab.environment)
        .status();
    assert!(kinit.unwrap().success());
    cache
}

fn expired_ticket(lab: &Lab) {
    let cache = ticket(lab, "short", "2s");
    std::thread::sleep(Duration::from_secs(3));
    let mut command = lab.command();
    command.env("KRB5CCNAME", &cache);
    let args = [&INGEST[..], &IMPATIENT].concat();
    let output = run_in(&mut command, &lab.warehouse("day"), &args);
    assert_ends(&output, 5, &["expired", "kinit"]);
}

#[test]
fn kerberos_by_ticket_keytab_and_token() {
    let Some(lab) = Lab::up(&["secure"]) else {
        return;
    };
    with_day(&lab, "day");
    let mut doctor = lab.command();
    doctor.args(["doctor", "-D", &lab.warehouse("day")]);
    let told = String::from_utf8(doctor.output().unwrap().stdout).unwrap();
    assert!(
        told.contains("privacy without AES moves a few MB/s"),
        "{told}"
    );
    clocks_that_differ(&lab);
    doctor_names_what_kerberos_lacks(&lab);
    let run = |environment: &[(&str, &str)], args: &[&str]| {
        let mut command = lab.command();
        command.envs(environment.iter().copied());
        run_in(
            &mut command,
            &lab.warehouse("day"),
            &[&INGEST[..], args].concat(),
        )
    };
    let all = ["--reprocess", "all"];
    assert_ends(&run(&[], &all), 0, &["files published: 24"]);
    let nowhere = ("KRB5CCNAME", "/nonexistent");
    let keytab = format!("hadoop.keytab={}", lab.environment["KEYTAB"]);
    let principal = format!("hadoop.principal={}", lab.environment["PRINCIPAL"]);
    let by_keytab = [&all[..], &["-D", &keytab, "-D", &principal]].concat();
    assert_ends(&run(&[nowhere], &by_keytab), 0, &["files published: 24"]);
    let none = ["-D", "hadoop.keytab=/nonexistent", "-D", &principal];
    let output = run(&[], &none);
    assert_ends(&output, 2, &["hadoop.keytab /nonexistent: "]);
    let token = format!("{}/token", lab.environment["LAB"]);
    lab.sh(&["token", &token]);
    let by_token = [nowhere, ("HADOOP_TOKEN_FILE_LOCATION", token.as_str())];
    // A principal alone, as a site file may have it, changes nothing.
    let by_name = [&all[..], &["-D", &principal]].concat();
    assert_ends(&run(&by_token, &by_name), 0, &["files published: 24"]);
    assert_ends(&run(&[nowhere], &IMPATIENT), 5, &["Kerberos", "kinit"]);
    let simple = [
        &IMPATIENT[..],
        &["-D", "hadoop.security.authentication=simple"],
    ]
    .concat();
    assert_ends(&run(&[], &simple), 6, &["hadoop.security.authentication"]);
    expired_ticket(&lab);
    // A KDC that does not answer holds nothing up for longer than the time-out.
    lab.sh(&["stop", "kdc"]);
    let start = Instant::now();
    let args = [&by_keytab[..], &IMPATIENT].concat();
    let output = run(&[nowhere], &args);
    lab.sh(&["cont", "kdc"]);
    assert_ends(&output, 6, &["gave no answer"]);
    assert!(start.elapsed() < Duration::from_secs(30));
    drop(lab);
    let Some(lab) = Lab::up_with(&["secure"], &[("PROT", "integrity")]) else {
        return;
    };
    with_day(&lab, "day");
    assert_ends(&lab.run("day", &INGEST), 0, &["files published: 24"]);
}
