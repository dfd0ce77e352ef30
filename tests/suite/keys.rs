//! Keys that lie on every node: workers that are told where their driver is, and certificates of the site.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use rcgen::CertificateParams;
use rcgen::KeyPair;
use serde_json::Value;

use crate::cluster::Site;
use crate::cluster::is_heard_while_busy;
use crate::cluster::is_there;
use crate::cluster::text;
use crate::cluster::wait_for;
use crate::strangers;
use crate::strangers::assert_closed_to_all;
use crate::strangers::listening;
use crate::support::klieg_stdout;

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_worker_is_told_where_its_driver_is() {
    let site = Site::new();
    let secret = |name: &str| {
        let path = site.path(name);
        private(&path, &klieg_stdout(&["emit", "pool-key"]));
        format!("pool.secret={}", path.display())
    };
    let (own, other) = (secret("pool.pem"), secret("other.pem"));
    let (port, address) = {
        let port = free_port();
        (format!("cluster.port={port}"), format!("127.0.0.1:{port}"))
    };
    let driver = ["--driver", &address, "-D"];
    let worker = site.worker_of("told", &[&driver[..], &[&own]].concat(), &[]);
    worker.wait_told(&format!("no driver at {address}"));
    let run = ["--cluster", "p", "-D", &port, "-D", &own];
    for _ in 0..2 {
        site.run_same(&mut site.run(&run));
    }
    drop(worker);
    is_heard_while_busy(&site, &run, Some(&[&driver[..], &[&own]].concat()));

    let wrong = site.worker_of("wrong", &[&driver[..], &[&other]].concat(), &[]);
    let impatient = [&run[..], &["--pool-wait", "6s"]].concat();
    let (code, told) = text(&site.run(&impatient).output().unwrap());
    assert_eq!(code, Some(6), "{told}");
    assert!(told.contains("0 of 1 workers"), "{told}");
    assert!(wrong.told().contains("no driver at"), "{}", wrong.told());
    drop(wrong);

    let other = site.worker_of_another_build(&[&driver[..], &[&own]].concat());
    let (code, told) = text(&site.run(&impatient).output().unwrap());
    assert_eq!(code, Some(6), "{told}");
    assert!(
        told.contains("worker at 127.0.0.1 is klieg of build"),
        "{told}"
    );
    other.wait_told("install the same program on all nodes");
    drop(other);

    for (args, wanted) in [
        (
            &["--driver", address.as_str()][..],
            "needs a key on every node",
        ),
        (&["--driver", "edge"][..], "is not host:port"),
        (
            &["--driver", "edge:1", "--pool", "p"][..],
            "cannot be used with",
        ),
    ] {
        let args = [&["worker"], args].concat();
        let (code, told) = text(&site.klieg(&args, "work").output().unwrap());
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(wanted), "{told}");
    }
}

/// An authority of the site, PEM of certificate and key, and the settings of what it issued for this host.
fn certificates(folder: &Path) -> (String, [String; 6]) {
    fs::create_dir_all(folder).unwrap();
    let authority = strangers::forged_authority();
    let (of_authority, issuer) = strangers::issuer(&authority);
    let key = KeyPair::generate().unwrap();
    // The name is for those who ask as members of a run do.
    let names = ["127.0.0.1", strangers::NAME].map(ToOwned::to_owned);
    let host = CertificateParams::new(names).unwrap();
    let host = host.signed_by(&key, &issuer).unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        private(&path, text);
        path
    };
    let [ca, cert, key] = [
        file("ca.pem", of_authority),
        file("cert.pem", &host.pem()),
        file("key.pem", &key.serialize_pem()),
    ];
    let setting = |key: &str, path: &Path| format!("cluster.tls.{key}={}", path.display());
    let flag = || "-D".to_owned();
    let settings = [
        flag(),
        setting("ca", &ca),
        flag(),
        setting("cert", &cert),
        flag(),
        setting("key", &key),
    ];
    (authority, settings)
}

#[test]
fn certificates_of_the_site_are_believed_and_no_others() {
    let site = Site::new();
    let (authority, own) = certificates(&site.path("own"));
    let (another, other) = certificates(&site.path("other"));
    let (own, other) = (
        own.each_ref().map(String::as_str),
        other.each_ref().map(String::as_str),
    );
    let stranger = site.worker("stranger", &other, &[]);
    let run = [&["--cluster", "p"], &own[..]].concat();
    let impatient = [&run[..], &["--pool-wait", "6s"]].concat();
    let (code, told) = text(&site.run(&impatient).output().unwrap());
    assert_eq!(code, Some(6), "{told}");
    assert!(
        stranger.told().contains("certificate"),
        "{}",
        stranger.told()
    );
    let told = stranger.told();
    assert!(told.contains("is not of the pool"), "{told}");
    let key = own[5].split_once('=').unwrap().1;
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = text(&site.run(&run).output().unwrap());
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("others can read it: chmod 600"), "{told}");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    every_port(&site, &own, (&authority, &another));
    drop(stranger);
}

/// Those of a driver and its worker, while they work.
fn every_port(site: &Site, own: &[&str], authorities: (&str, &str)) {
    let (go, once) = (site.path("go"), site.path("waited"));
    let waiting = [
        ("KLIEG_WAIT_AT", "before a task: decode and write"),
        ("KLIEG_WAIT_FOR", go.to_str().unwrap()),
        ("KLIEG_ONCE", once.to_str().unwrap()),
    ];
    let worker = site.worker("own-worker", own, &waiting);
    let mut run = site.run(&[&["--cluster", "p"], own].concat());
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let driver = run.spawn().unwrap();
    wait_for("a task", || is_there(&once));
    let ports = listening(&[driver.id().to_string(), worker.serving()]);
    assert_eq!(ports.len(), 2);
    let file = fs::read_to_string(site.path(".klieg/pools/p.json")).unwrap();
    let pool: Value = serde_json::from_str(&file).unwrap();
    let who = ["build", "run"].map(|key| pool[key].as_str().unwrap());
    for port in ports {
        assert_closed_to_all(port, authorities, who.into());
    }
    fs::write(&go, "").unwrap();
    let (code, told) = text(&driver.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{told}");
    site.check(&told);
}
