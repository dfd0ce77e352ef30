//! The generator is no toy: what `ordinary` traffic must look like, and that it is the same each time.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::OnceLock;

use klieg::synth;
use klieg::synth::SynthDay;
use klieg::synth::SynthParams;
use klieg::wire::nfcapd::Compression;

use crate::support::nfdump_csv;

fn params(flows: u64) -> SynthParams {
    SynthParams {
        day: "2016-07-08".parse().unwrap(),
        flows,
        seed: 1,
    }
}

fn day() -> &'static SynthDay {
    static DAY: OnceLock<SynthDay> = OnceLock::new();
    DAY.get_or_init(|| synth::generate(&params(400_000)))
}

#[test]
fn the_size_is_about_what_was_asked_for() {
    for flows in [150_000, 400_000] {
        let records = if flows == 400_000 {
            day().records.len()
        } else {
            synth::generate(&params(flows)).records.len()
        };
        let ratio = records as f64 / flows as f64;
        assert!((0.7..1.5).contains(&ratio), "{flows} asked, {records} made");
    }
}

#[test]
fn workstations_have_a_day() {
    let mut hours = [0_u64; 24];
    for labelled in &day().records {
        if matches!(labelled.record.src_ip, IpAddr::V4(ip) if ip.octets()[..3] <= [10, 1, 15][..] && ip.octets()[..2] == [10, 1])
        {
            hours[usize::try_from(labelled.record.first_ms / 3_600_000 % 24).unwrap()] += 1;
        }
    }
    let (most, least) = (hours.iter().max().unwrap(), hours.iter().min().unwrap());
    assert!(*most >= 5 * least, "{hours:?}");
}

#[test]
fn few_hosts_make_much_of_the_traffic_and_many_are_seen_rarely() {
    let mut bytes: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let mut records: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let mut triples: BTreeMap<_, u64> = BTreeMap::new();
    for labelled in &day().records {
        let record = &labelled.record;
        for ip in [record.src_ip, record.dst_ip] {
            *bytes.entry(ip).or_default() += record.bytes_in;
            *records.entry(ip).or_default() += 1;
        }
        *triples
            .entry((record.src_ip, record.dst_ip, record.dst_port))
            .or_default() += 1;
    }
    let mut sorted: Vec<_> = bytes.values().copied().collect();
    sorted.sort_unstable_by(|left, right| right.cmp(left));
    let top: u64 = sorted.iter().take(sorted.len() / 100).sum();
    let share = top as f64 / sorted.iter().sum::<u64>() as f64;
    assert!(share >= 0.3, "top 1 % of hosts make {share} of the bytes");
    let once = triples.values().filter(|count| **count == 1).count() as f64 / triples.len() as f64;
    assert!(once >= 0.4, "{once} of the triples occur once");
    let rare = records.values().filter(|count| **count < 5).count() as f64 / records.len() as f64;
    assert!(
        (0.2..=0.7).contains(&rare),
        "{rare} of the hosts have fewer than 5 records"
    );
}

/// Moran's test of exponential gaps: under it, the statistic is about chi-square with n − 1 degrees of freedom, far below which
/// lie machines' rhythms. 1e-6 of chi-square is at about mean − 4.75 deviations (normal approximation of its cube root).
#[test]
fn there_are_benign_beacons() {
    let mut starts: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for labelled in day()
        .records
        .iter()
        .filter(|labelled| labelled.attack.is_none())
    {
        let record = &labelled.record;
        if record.direction == 0 {
            let key = (record.src_ip, record.dst_ip, record.dst_port);
            starts.entry(key).or_default().push(record.first_ms);
        }
    }
    let is_periodic = |times: &mut Vec<u64>| {
        times.sort_unstable();
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .filter(|gap| *gap > 500.0)
            .collect();
        if gaps.len() < 7 {
            return false;
        }
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let logs = gaps.iter().map(|gap| (gap / mean).ln()).sum::<f64>() / n;
        let moran = -2.0 * n * logs / (1.0 + (n + 1.0) / (6.0 * n));
        let freedom = n - 1.0;
        let cube = (moran / freedom).cbrt();
        let z = (cube - (1.0 - 2.0 / (9.0 * freedom))) / (2.0 / (9.0 * freedom)).sqrt();
        z < -4.75
    };
    let periodic = starts
        .values_mut()
        .map(is_periodic)
        .filter(|periodic| *periodic)
        .count();
    assert!(periodic >= 100, "{periodic} benign pairs with a rhythm");
}

/// No single threshold on port, bytes, packets or hour separates an attack. Scans are left out, and exfiltration, whose size no
/// ordinary record of a small day reaches.
#[test]
fn attacks_are_not_trivial() {
    let features = |record: &klieg::wire::flow::FlowRecord| {
        // Type and code of ICMP stand in the destination port.
        let is_icmp = record.protocol == 1;
        let port = if is_icmp {
            record.dst_port
        } else {
            record.dst_port.min(record.src_port)
        };
        let hour = record.first_ms / 3_600_000 % 24;
        [
            f64::from(port),
            record.bytes_in as f64,
            record.packets_in as f64,
            hour as f64,
        ]
    };
    let ordinary: Vec<_> = day()
        .records
        .iter()
        .filter(|labelled| labelled.attack.is_none())
        .collect();
    for attack in &day().attacks {
        if attack.kind.contains("scan") {
            continue;
        }
        let own: Vec<_> = day()
            .records
            .iter()
            .filter(|labelled| labelled.attack == Some(attack.id))
            .collect();
        assert!(!own.is_empty(), "{} is not there", attack.kind);
        for feature in 0..4 {
            let mut values: Vec<(f64, bool)> = ordinary
                .iter()
                .step_by(7)
                .map(|l| (features(&l.record)[feature], false))
                .collect();
            values.extend(own.iter().map(|l| (features(&l.record)[feature], true)));
            let auroc = auroc(&mut values);
            let best = auroc.max(1.0 - auroc);
            assert!(
                best < 0.98 || attack.kind.starts_with("exfiltration"),
                "{} feature {feature}: {best}",
                attack.kind
            );
        }
    }
}

/// Probability that an attack's value is above an ordinary one's, ties half.
fn auroc(values: &mut [(f64, bool)]) -> f64 {
    values.sort_by(|left, right| left.0.total_cmp(&right.0));
    let positives = values.iter().filter(|value| value.1).count() as f64;
    let negatives = values.len() as f64 - positives;
    let (mut below, mut sum) = (0.0, 0.0);
    for run in values.chunk_by(|left, right| left.0 == right.0) {
        let own = run.iter().filter(|value| value.1).count() as f64;
        let others = run.len() as f64 - own;
        sum += own * (below + others / 2.0);
        below += others;
    }
    sum / (positives * negatives)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_nfdump_reads_them() {
    let mut contents = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let landing = folder.path().join("landing");
        let generated = synth::generate(&params(20_000));
        synth::write(&generated, Compression::Lz4, &landing, folder.path()).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&landing)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        if contents.is_empty() {
            let read: usize = names.iter().map(|path| nfdump_csv(path).len()).sum();
            assert_eq!(read, generated.records.len());
        }
        let files: Vec<_> = names
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        contents.push((
            files,
            std::fs::read(folder.path().join("labels.parquet")).unwrap(),
        ));
    }
    assert!(contents[0] == contents[1]);
    let other = synth::generate(&SynthParams {
        seed: 2,
        ..params(20_000)
    });
    let ours = synth::generate(&params(20_000));
    assert_ne!(other.records.len(), ours.records.len());
    let kinds: BTreeSet<_> = ours.attacks.iter().map(|attack| attack.kind).collect();
    assert!(kinds.len() >= 12, "{kinds:?}");
}
