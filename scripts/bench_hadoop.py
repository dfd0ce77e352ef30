"""Rows of the benchmark on a Hadoop cluster of scripts/lab: 3 DataNodes, one replica, loopback."""
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
        up = subprocess.run([LAB, "up", "simple"], check=True, capture_output=True, text=True, env={**os.environ, "REPL": "1"})
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


def small(bench, cluster):
    """What a partition costs beside its data, and days that are up to date."""
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
    settings = ["-D", f"warehouse={warehouse}", "-D", "ingest.settle=0s", "-D", "suspicious.model=none"]
    command = [bench.KLIEG, "run", ROOT / "jobs/flow.yaml", *settings]
    first = [*command, "--date", days[0], "--steps", "ingest", "--reprocess", "all"]
    walls = [bench.measure(first)[0]["wall_s"] for _ in range(50)]
    bench.row("a whole run of a day of one small file, median of 50", {"wall_s": statistics.median(walls)}, asked="publishing <= 1.5 s")
    span = ["--from", days[0], "--to", days[-1]]
    bench.measure([*command, *span])
    skipped, _ = bench.measure([*command, *span])
    bench.row("run over 30 up-to-date days", skipped, asked="wall <= 5 s")
