"""Rows of the benchmark on a Hadoop cluster of scripts/lab: 3 DataNodes, one replica, loopback."""
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "scripts/lab/lab.sh"


class Cluster:
    """A cluster that runs while this is open; klieg and Hadoop find it by the environment."""

    def __enter__(self):
        subprocess.run([LAB, "prepare"], check=True, stdout=sys.stderr)
        up = subprocess.run([LAB, "up", "simple", "--hms"], check=True, capture_output=True, text=True, env={**os.environ, "REPL": "1"})
        self.lab = dict(word.split("=", 1) for word in up.stdout.split() if "=" in word)
        os.environ.update(self.lab, HADOOP_USER_NAME="spot")
        return self

    def __exit__(self, *_):
        subprocess.run([LAB, "down"], capture_output=True)

    def put(self, files, name):
        landing = f"/user/spot/{name}/flow/landing"
        for args in (["-mkdir", "-p", landing], ["-put", *map(str, files), landing], ["-chown", "-R", "spot", "/user/spot"]):
            subprocess.run([LAB, "fs", *args], check=True, capture_output=True)
        return f"{self.lab['HDFS_URL']}/user/spot/{name}"


def hadoop(bench, records):
    file = bench.big_file(records)
    local = bench.warehouse_of("flow", file)
    with Cluster() as cluster:
        bench.row("raw file to both lists, file://", here := bench.run(local, "--threads", "2"))
        there = bench.run(cluster.put([file], "flow"), "--threads", "2")
        bench.row("  the same, hdfs://", there, ratio_wall=round(there["wall_s"] / here["wall_s"], 2), asked="wall <= 1.6")
        small(bench, cluster)
        year(bench, cluster)


def small(bench, cluster):
    """What a partition costs beside its data, with the metastore, and days that are up to date."""
    days = [f"2016-06-{day:02}" for day in range(1, 31)]
    generated = bench.WORK / "small"
    shutil.rmtree(generated, ignore_errors=True)
    bench.measure([bench.KLIEG, "synth", "--date", days[0], "--flows", "1", "--out", generated])
    one = sorted((generated / "flow/landing").iterdir())[100]
    files = []
    for day in days:
        files.append(generated / f"nfcapd.{day.replace('-', '')}1200")
        shutil.copy(one, files[-1])
    warehouse = cluster.put(files, "small")
    settings = ["-D", f"warehouse={warehouse}", "-D", "ingest.settle=0s", "-D", "suspicious.model=none", "-D", "catalog.kind=metastore"]
    bench.measure([bench.KLIEG, "setup", "-D", f"warehouse={warehouse}", "-D", "catalog.kind=metastore"])
    command = [bench.KLIEG, "run", ROOT / "jobs/flow.yaml", *settings]
    first = [*command, "--date", days[0], "--steps", "ingest", "--reprocess", "all", "--output", "json"]
    measured = [bench.measure(first, subprocess.PIPE) for _ in range(50)]
    # From before the lock until the report is to be written, decoding of the small file included.
    outcomes = [json.loads(text)["days"][0]["outcome"] for _, text in measured]
    inner = [outcome["seconds"] for outcome in outcomes]
    holes = [outcome["steps"][0]["report"]["absent_ms"] for outcome in outcomes[1:]]
    whole = statistics.median(figures["wall_s"] for figures, _ in measured)
    median = round(statistics.median(inner), 2)
    bench.row("a day of one small file, lock to _SUCCESS, median of 50", {"wall_s": median}, whole_run_s=whole, absent_ms=round(statistics.median(holes), 1), absent_ms_most=round(max(holes), 1), asked="wall <= 1.5 s")
    span = ["--from", days[0], "--to", days[-1]]
    bench.measure([*command, *span])
    skipped, _ = bench.measure([*command, *span])
    bench.row("run over 30 up-to-date days", skipped, asked="wall <= 5 s")


def year(bench, cluster):
    """The plan of a year of hours."""
    files = bench.WORK / "year"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    one = next((bench.WORK / "small").glob("nfcapd.*"))
    start = datetime.datetime(2016, 1, 1)
    for index in range(20_000):
        time = start + datetime.timedelta(minutes=26 * index)
        os.link(one, files / f"nfcapd.{time:%Y%m%d%H%M}")
    landing = "/user/spot/year/flow/landing"
    for args in (["-mkdir", "-p", landing], ["-put", "-t", "8", "-q", "2000", f"{files}/.", landing], ["-chown", "-R", "spot", "/user/spot/year"]):
        subprocess.run([LAB, "fs", *args], check=True, capture_output=True)
    command = [bench.KLIEG, "plan", ROOT / "jobs/flow.yaml", "-D", f"warehouse={cluster.lab['HDFS_URL']}/user/spot/year"]
    span = ["--from", "2016-01-01T00", "--to", "2016-12-30T23", "--steps", "ingest"]
    figures, _ = bench.measure([*command, *span])
    bench.row("plan of 365 days x 24 hours, 20,000 raw files on HDFS", figures, asked="wall <= 10 s, 300 MB")
