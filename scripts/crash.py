"""Runs a range of five days again and again, each time with other settings, kills the run at a random instant, looks.

A mix: files of two publications in one partition, or a part of one. A loss: a day that had rows has none, or, at the end, rows that
differ from those of a run that nobody killed. A hole (HDFS only): a folder is missing since the run died between two renames.
"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import duckdb

ROOT = pathlib.Path(__file__).resolve().parent.parent
KLIEG = ROOT / "target/release/klieg"
LAB = ROOT / "scripts/lab/lab.sh"
DAYS = [f"2016-07-{day:02}" for day in range(8, 13)]
SETTINGS = ["ingest.slack=1h", "ingest.slack=61m", "ingest.slack=62m"]


class Local:
    """A warehouse on this machine."""

    def __init__(self, folder):
        self.folder, self.url, self.environment = folder, str(folder), dict(os.environ)

    def files(self, day):
        folder = self.folder / hive(day)
        return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*.parquet")}

    def fetch(self, target):
        shutil.copytree(self.folder / "flow/hive", target)

    def close(self):
        pass


class Hdfs:
    """A warehouse on a cluster of scripts/lab, looked at over WebHDFS."""

    def __init__(self, folder):
        output = subprocess.run([LAB, "up", "simple"], check=True, capture_output=True, text=True).stdout
        self.lab = dict(word.split("=", 1) for word in output.split() if "=" in word)
        self.environment = {**os.environ, **self.lab, "HADOOP_USER_NAME": "spot"}
        self.url = self.lab["HDFS_URL"] + "/user/spot"
        self.sh("fs", "-mkdir", "-p", "/user/spot/flow")
        self.sh("fs", "-put", str(folder / "flow/landing"), "/user/spot/flow/")
        self.sh("fs", "-chown", "-R", "spot", "/user/spot")

    def sh(self, *args):
        subprocess.run([LAB, *args], check=True, env={**os.environ, **self.lab}, capture_output=True)

    def list(self, path):
        url = f"{self.lab['NN_HTTP']}/webhdfs/v1{path}?op=LISTSTATUS&user.name=hdfs"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return json.load(opener.open(url))["FileStatuses"]["FileStatus"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise

    def files(self, day):
        folder, found = f"/user/spot/{hive(day)}", {}
        for hour in self.list(folder):
            if hour["type"] == "DIRECTORY":
                for file in self.list(f"{folder}/{hour['pathSuffix']}"):
                    found[f"{hour['pathSuffix']}/{file['pathSuffix']}"] = file["length"]
        return found

    def fetch(self, target):
        self.sh("fs", "-get", "/user/spot/flow/hive", str(target))

    def close(self):
        subprocess.run([LAB, "down"], env={**os.environ, **self.lab}, capture_output=True)


def hive(day):
    year, month, day = (int(part) for part in day.split("-"))
    return f"flow/hive/y={year}/m={month}/d={day}"


def command(url, days, setting):
    span = ["--from", days[0], "--to", days[-1], "--steps", "ingest", "--reprocess", "all"]
    settings = [f"warehouse={url}", setting, "ingest.settle=0s"]
    return [KLIEG, "run", ROOT / "jobs/flow.yaml", *span, *(part for pair in settings for part in ("-D", pair))]


def rows(folder):
    """A hash of all rows of a table, whatever their order."""
    files = f"{folder}/y=*/m=*/d=*/h=*/*.parquet"
    query = f"SELECT count(*), bit_xor(hash(t)) FROM read_parquet('{files}', hive_partitioning=true, filename=false) t"
    return duckdb.sql(query).fetchall()[0]


def kill_once(site, known, rng, longest):
    first = rng.randrange(len(DAYS))
    last = rng.randrange(first, len(DAYS))
    run = subprocess.Popen(
        command(site.url, DAYS[first : last + 1], rng.choice(SETTINGS)),
        env=site.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(rng.random() * longest * (last - first + 1) / len(DAYS))
    was_running = run.poll() is None
    run.kill()
    run.wait()
    mixes = losses = holes = 0
    for day in DAYS:
        files = site.files(day)
        tags = {re.sub(r".*-([0-9a-f]{8})\..*", r"\1", name) for name in files}
        if not files and isinstance(site, Hdfs):
            holes += 1
        elif not files:
            losses += 1
        elif len(tags) > 1 or sorted(files.values()) != known[day]:
            mixes += 1
    return was_running, mixes, losses, holes


def main():
    numbers = [int(arg) for arg in sys.argv[1:] if arg.isdigit()]
    kills = numbers[0] if numbers else 50
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for day in DAYS:
            synth = [KLIEG, "synth", "--date", day, "--flows", "1", "--seed", day[-2:], "--out", folder]
            subprocess.run(synth, check=True, capture_output=True)
        site = (Hdfs if "--hdfs" in sys.argv else Local)(folder)
        try:
            code = crash(site, folder, kills, rng)
        finally:
            site.close()
    sys.exit(code)


def crash(site, folder, kills, rng):
    walls = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run(command(site.url, DAYS, SETTINGS[0]), check=True, env=site.environment, capture_output=True)
        walls.append(time.monotonic() - started)
    longest = min(walls)
    started = time.monotonic()
    site.fetch(folder / "reference")
    reference = rows(folder / "reference")
    known = {day: sorted(site.files(day).values()) for day in DAYS}
    totals = [0, 0, 0, 0]
    for number in range(1, kills + 1):
        totals = [total + new for total, new in zip(totals, kill_once(site, known, rng, longest))]
        if number % 20 == 0 or number == kills:
            running, mixes, losses, holes = totals
            print(f"{number} kills, {running} of running runs: {mixes} mixes, {losses} losses, {holes} holes", file=sys.stderr)
    subprocess.run(command(site.url, DAYS, SETTINGS[0]), check=True, env=site.environment, capture_output=True)
    site.fetch(folder / "end")
    end = rows(folder / "end")
    running, mixes, losses, holes = totals
    losses += end != reference
    print(
        f"{kills} kills ({running} of a run at work), {time.monotonic() - started:.0f} s: "
        f"{mixes} mixes, {losses} losses, {holes} holes between renames; {end[0]} rows at the end, {reference[0]} wanted"
    )
    return 1 if mixes or losses else 0


main()
