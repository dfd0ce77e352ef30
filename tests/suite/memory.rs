//! A day that is larger than the memory of its worker: it spills, and gives the bytes of a run that has room.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::run::Warehouse;

const DAY: &str = "2016-07-08";

#[test]
fn a_day_larger_than_its_worker_spills() {
    let warehouse = Warehouse::empty();
    warehouse.land(DAY, 700_000, |day| {
        // Nobody is met twice: two pairs a flow are to be counted.
        let address = |number| IpAddr::V4(Ipv4Addr::from_bits(number));
        for (number, labelled) in (0..).zip(&mut day.records) {
            labelled.record.src_ip = address(0x0B00_0000 + number);
            labelled.record.dst_ip = address(0x0C00_0000 + number);
        }
    });
    let day = ["--date", DAY, "-D", "suspicious.model=none"];
    // The least that a worker of one slot takes.
    let small = [
        "--threads",
        "1",
        "--cluster",
        "local:1",
        "-D",
        "memory=208MiB",
    ];
    let result = warehouse.run_ok(&[&day[..], &small].concat());
    let work = &result["days"][0]["outcome"]["steps"][1]["report"]["work"][0];
    assert_eq!(work["plan"], "documents", "{work}");
    let spilled = |stage: &Value| stage["spilled_bytes"].as_u64().unwrap();
    let stages = work["stages"].as_array().unwrap();
    assert!(stages.iter().map(spilled).sum::<u64>() > 0, "{work}");
    let published = warehouse.published();
    let room = ["--steps", "suspicious", "--reprocess", "all"];
    warehouse.run_ok(&[&day[..], &room].concat());
    assert!(warehouse.published() == published, "{work}");
}
