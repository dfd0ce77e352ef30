//! The decoder against nfdump, every field of every record; the encoder read back by nfdump.

use std::fs::File;
use std::io::Cursor;
use std::net::IpAddr;
use std::path::Path;

use klieg::wire::flow::FlowRecord;
use klieg::wire::nfcapd::Compression;
use klieg::wire::nfcapd::Encoder;
use klieg::wire::nfcapd::Exporter;

use crate::support::Rng;
use crate::support::klieg_stdout;
use crate::support::nfdump_csv;
use crate::support::shared_data;

fn klieg_csv(file: &Path, threads: &str) -> Vec<String> {
    let file = file.to_str().unwrap();
    let text = klieg_stdout(&[
        "inspect",
        "-n",
        "all",
        "--output",
        "csv",
        "--threads",
        threads,
        file,
    ]);
    text.lines().skip(1).map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(ours: &[String], theirs: &[String], what: &str) {
    for (index, (our, their)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(our, their, "{what}: record {index}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}: number of records");
}

#[track_caller]
fn assert_as_nfdump(name: &str, records: usize) {
    let Some(file) = shared_data(name) else {
        return;
    };
    let theirs = nfdump_csv(&file);
    assert_eq!(
        theirs.len(),
        records,
        "{name}: nfdump must read it, or this test proves nothing"
    );
    assert_same(&klieg_csv(&file, "2"), &theirs, name);
}

#[test]
fn layout1_lzo_small() {
    assert_as_nfdump("nfcapd/nfcapd-small-lzo", 10);
}

#[test]
fn layout1_bz2_with_many_exporters_and_maps() {
    assert_as_nfdump("nfcapd/nfcapd-large-bz2", 100_000);
}

#[test]
fn layout1_empty() {
    assert_as_nfdump("nfcapd/nfcapd-empty", 0);
}

#[test]
fn layout1_lzo_million() {
    assert_as_nfdump("nfcapd/ctu13-1m.v1.lzo.nfcapd", 1_000_000);
}

#[test]
fn layout2_lz4_million() {
    assert_as_nfdump("nfcapd/ctu13-1m.v2.lz4.nfcapd", 1_000_000);
}

#[test]
fn layout1_mixed_addresses() {
    assert_as_nfdump("nfcapd/ctu13-v9-mixed46-200k.v1.lzo.nfcapd", 200_000);
}

/// The same records in four encodings.
#[test]
fn encodings_of_the_same_records_agree() {
    let names = ["v2.lz4", "v1.lzo", "v1.bz2", "v2.zstd"];
    assert_same_records(&names.map(|encoding| format!("nfcapd/ctu13-1m.{encoding}.nfcapd")));
}

#[test]
fn mixed_addresses_agree_in_both_layouts() {
    let names = ["v1.lzo", "v2.zstd"];
    assert_same_records(
        &names.map(|encoding| format!("nfcapd/ctu13-v9-mixed46-200k.{encoding}.nfcapd")),
    );
}

#[track_caller]
fn assert_same_records(names: &[String]) {
    let files: Vec<_> = names.iter().filter_map(|name| shared_data(name)).collect();
    let Some((first, rest)) = files.split_first() else {
        return;
    };
    let expected = comparable(&klieg_csv(first, "2"));
    for file in rest {
        let found = comparable(&klieg_csv(file, "2"));
        assert_same(&found, &expected, &file.to_string_lossy());
    }
}

/// What does not depend on the collector, sorted: the collectors of layout 2 compress on several threads and write blocks as
/// they are done; engine and receive time, the last columns but one, are each collector's own.
fn comparable(lines: &[String]) -> Vec<String> {
    let mut rows: Vec<_> = lines
        .iter()
        .map(|line| line.rsplitn(4, ',').last().unwrap().to_owned())
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn threads_do_not_change_the_result() {
    let Some(file) = shared_data("nfcapd/nfcapd-large-bz2") else {
        return;
    };
    let expected = klieg_csv(&file, "1");
    for threads in ["2", "7"] {
        assert_eq!(klieg_csv(&file, threads), expected, "{threads} threads");
    }
}

fn random_flow(rng: &mut Rng) -> FlowRecord {
    let first_ms = 1_467_936_000_000 + rng.next() % 86_400_000;
    let [src_ip, dst_ip] = if rng.below(4) == 0 {
        [rng.next(), rng.next()]
            .map(|n| IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(n)).to_be_bytes()))
    } else {
        [rng.next(), rng.next()]
            .map(|n| IpAddr::from(u32::try_from(n >> 32).unwrap().to_be_bytes()))
    };
    let small = |rng: &mut Rng| u8::try_from(rng.below(256)).unwrap();
    FlowRecord {
        first_ms,
        last_ms: first_ms + rng.next() % 300_000,
        received_ms: first_ms + 300_000,
        src_ip,
        dst_ip,
        src_port: u16::try_from(rng.below(65536)).unwrap(),
        dst_port: u16::try_from(rng.below(65536)).unwrap(),
        protocol: [6, 17, 1, 47][rng.below(4)],
        tcp_flags: small(rng),
        src_tos: small(rng),
        dst_tos: small(rng),
        packets_in: rng.next() >> 40,
        bytes_in: rng.next() >> 30,
        packets_out: rng.next() >> 50,
        bytes_out: rng.next() >> 40,
        input: u32::try_from(rng.below(65536)).unwrap(),
        output: u32::try_from(rng.below(65536)).unwrap(),
        src_as: u32::try_from(rng.next() >> 32).unwrap(),
        dst_as: u32::try_from(rng.next() >> 32).unwrap(),
        router_ip: IpAddr::from([192, 0, 2, 1]),
        exporter_id: 1,
        ..FlowRecord::default()
    }
}

/// nfdump's own reading of what the encoder wrote, and ours: both must see every field that went in.
#[test]
fn encoder_is_read_back_by_nfdump() {
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter {
        ip: IpAddr::from([192, 0, 2, 1]),
        version: 9,
        domain: 7,
    };
    let mut read_by_nfdump = Vec::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let path = folder.path().join(compression.name());
        let mut encoder =
            Encoder::try_new(File::create(&path).unwrap(), compression, &[(1, exporter)]).unwrap();
        let mut rng = Rng(7);
        for _ in 0..20_000 {
            encoder.push(&random_flow(&mut rng)).unwrap();
        }
        encoder.finish(1_467_936_000).unwrap();
        let ours = klieg_csv(&path, "2");
        if compression == Compression::Zstd {
            // Debian's nfdump 1.7.1 is built without ZSTD.
            assert_same(&ours, &read_by_nfdump, "zstd");
        } else {
            read_by_nfdump = nfdump_csv(&path);
            assert_same(&ours, &read_by_nfdump, compression.name());
        }
    }
    let mut rng = Rng(7);
    for line in &read_by_nfdump {
        let flow = random_flow(&mut rng);
        let fields: Vec<_> = line.split(',').collect();
        let numbers = [
            (11, flow.packets_in),
            (12, flow.bytes_in),
            (13, flow.packets_out),
            (14, flow.bytes_out),
        ];
        for (column, value) in numbers {
            assert_eq!(
                fields[column],
                value.to_string(),
                "column {column} of {line}"
            );
        }
        assert_eq!(fields[3], flow.src_ip.to_string());
        assert_eq!(fields[4], flow.dst_ip.to_string());
        assert_eq!(fields[18], flow.dst_as.to_string());
    }
}

#[test]
fn encoder_refuses_what_it_cannot_write() {
    for compression in [Compression::Lzo, Compression::Bz2] {
        assert!(Encoder::try_new(Cursor::new(Vec::new()), compression, &[]).is_err());
    }
}
