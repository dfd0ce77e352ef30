"""Rows of the benchmark; called by scripts/bench. Every figure is measured in this run, on this machine."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import bench_cluster
import bench_hadoop

ROOT = Path(__file__).resolve().parent.parent
KLIEG = ROOT / "target/release/klieg"
WORK = ROOT / "target/bench"
DAY = "2016-07-08"
HIVE_DAY = "y=2016/m=7/d=8"
SHARED = ROOT.parent / "shared"
RESULTS = []


def measure(command, stdout=subprocess.DEVNULL):
    """CPU seconds, wall seconds, peak MB of a command that must succeed, and its stdout where asked for."""
    started = time.time()
    process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=subprocess.DEVNULL)
    text = process.stdout.read() if stdout == subprocess.PIPE else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"scripts/bench: {command} ended with status {status}")
    figures = {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_s": round(time.time() - started, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    return figures, text


def python(code, *args):
    """Runs Python code that prints its own figures as JSON, so that loading does not count."""
    helper = """
import json, os, resource, sys, time
def timed(work):
    a, start = resource.getrusage(resource.RUSAGE_SELF), time.time()
    work()
    b = resource.getrusage(resource.RUSAGE_SELF)
    return dict(cpu_s=round(b.ru_utime - a.ru_utime + b.ru_stime - a.ru_stime, 2),
                wall_s=round(time.time() - start, 2), peak_mb=round(b.ru_maxrss / 1024))
"""
    output = subprocess.run([sys.executable, "-c", helper + code, *map(str, args)], check=True, capture_output=True)
    return json.loads(output.stdout.splitlines()[-1])


def row(name, figures, **more):
    RESULTS.append({"row": name, **figures, **more})
    print(json.dumps(RESULTS[-1]), file=sys.stderr)


def run(warehouse, *more):
    job = ROOT / "jobs/flow.yaml"
    return measure([KLIEG, "run", job, "--date", DAY, "-D", f"warehouse={warehouse}", "--reprocess", "all", *more])[0]


def warehouse_of(name, file):
    warehouse = WORK / name
    shutil.rmtree(warehouse, ignore_errors=True)
    landing = warehouse / "flow/landing"
    landing.mkdir(parents=True)
    try:
        os.link(file, landing / "flows.nfcapd")
    except OSError:
        shutil.copy(file, landing / "flows.nfcapd")
    return warehouse


def big_file(records):
    """One nfcapd file: from the recorded capture where that is present, else generated."""
    recipe = SHARED / "data/recipes/gen_netflow.py"
    capture = SHARED / "data/labelled/capture20110818-2.binetflow.xz"
    target = WORK / f"flows-{records}.nfcapd"
    if target.exists():
        return target
    if recipe.exists() and capture.exists() and shutil.which("nfcapd"):
        folder = WORK / "collector"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        collector = subprocess.Popen(["nfcapd", "-b", "127.0.0.1", "-p", "9995", "-w", folder, "-t", "3600", "-B", "20000000", "-y"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        subprocess.run([sys.executable, recipe, capture, "--records", str(records), "--udp", "127.0.0.1:9995",
                        "--pps", "8000", "--start", f"{DAY}T00:00:00"], check=True, stdout=subprocess.DEVNULL)
        time.sleep(3)
        collector.terminate()
        collector.wait()
        files = sorted(folder.glob("nfcapd.2*"), key=lambda path: path.stat().st_size)
        files[-1].rename(target)
        return target
    generated = WORK / "generated"
    measure([KLIEG, "synth", "--date", DAY, "--flows", records, "--out", generated])
    # nfdump writes many files as one.
    subprocess.run(["nfdump", "-R", generated / "flow/landing", "-y", "-w", target], check=True, stdout=subprocess.DEVNULL)
    return target


def tables(records):
    file = big_file(records)
    warehouse = warehouse_of("flow", file)
    ours = run(warehouse, "--steps", "ingest", "--threads", "2")
    parts = sorted((warehouse / f"flow/hive/{HIVE_DAY}").glob("h=*/*.parquet"))
    size = sum(part.stat().st_size for part in parts) / 1e6
    csv = WORK / "nfdump.csv"
    with open(csv, "wb") as out:
        nfdump, _ = measure(["nfdump", "-r", file, "-o", "csv"], stdout=out)
    csv.unlink()
    files = [str(part) for part in parts]
    duck = python("""
import duckdb
c = duckdb.connect(); c.execute('set threads = 2')
c.execute(f'create table t as select * from read_parquet({json.loads(sys.argv[1])!r}, hive_partitioning = false)')
print(json.dumps(timed(lambda: c.execute(f"copy t to '{sys.argv[2]}' (format parquet, compression snappy)")) | dict(size_mb=os.path.getsize(sys.argv[2]) / 1e6)))
""", json.dumps(files), WORK / "duck.parquet")
    arrow = python("""
import pyarrow as pa, pyarrow.parquet as pq
t = pa.concat_tables(pq.read_table(f, partitioning=None) for f in json.loads(sys.argv[1]))
print(json.dumps(timed(lambda: pq.write_table(t, sys.argv[2], compression='snappy'))))
""", json.dumps(files), WORK / "arrow.parquet")
    row("nfcapd file to table flow", ours, size_mb=round(size, 1), asked="wall <= nfdump / 15, <= 1536 MB")
    row("  peer: nfdump -o csv to a file", nfdump, ratio_wall=round(nfdump["wall_s"] / ours["wall_s"], 1))
    row("  peer: DuckDB COPY of the table", duck, ratio_cpu=round(ours["cpu_s"] / duck["cpu_s"], 2),
        ratio_size=round(size / duck["size_mb"], 2), asked="cpu <= 1, size <= 1.1")
    row("  peer: pyarrow write_table", arrow, ratio_cpu=round(ours["cpu_s"] / arrow["cpu_s"], 2))
    counts(warehouse, files)
    both = run(warehouse, "--threads", "2")
    row("raw file to both lists, 5 + 4 models", both, asked="wall <= 75 s, <= 2048 MB")


def counts(warehouse, files):
    """The step without models is counts, ranking by host frequency and the look-up; `eval counts` is the counts alone."""
    ours, text = measure([KLIEG, "eval", "counts", "--threads", "2", *files], stdout=subprocess.PIPE)
    duck = python("""
import duckdb
c = duckdb.connect(); c.execute('set threads = 2')
files = json.loads(sys.argv[1])
tail = "proto || '_' || trhour || '_' || cast(ceil(log2(ibyt + 1)) as int) || '_' || cast(ceil(log2(ipkt + 1)) as int)"
query = f'''with f as (select sip, dip, sport s, dport d, {tail} t from read_parquet({files!r}, hive_partitioning = false)),
k as (select sip, dip, t, case when s = 0 and d = 0 then 'z' when d = 0 then 's' when s = 0 then 'd' when s <= 1024 and d <= 1024 then 'b'
      when s <= 1024 then 's' when d <= 1024 then 'd' else 'n' end c, s, d from f),
w as (select sip ip, case c when 'z' then '0' when 's' then '-1_' || s when 'd' then d::varchar when 'b' then '111111' else '333333' end || '_' || t w from k
      union all
      select dip, case c when 'z' then '0' when 's' then s::varchar when 'd' then '-1_' || d when 'b' then '111111' else '333333' end || '_' || t from k)
select ip, w, count(*) n from w group by ip, w'''
figures = timed(lambda: c.execute(f'create table r as {query}'))
print(json.dumps(figures | dict(pairs=c.execute('select count(*) from r').fetchone()[0])))
""", json.dumps(files))
    pairs = json.loads(text)["pairs"]
    assert pairs == duck["pairs"], (pairs, duck["pairs"])
    row("table to counts per (IP, word)", ours, pairs=pairs)
    row("  peer: DuckDB, words as text", duck, ratio_cpu=round(ours["cpu_s"] / duck["cpu_s"], 2), asked="cpu <= 1")


def topics():
    maker, judge = SHARED / "reference/lda/lda_corpus.py", SHARED / "reference/lda/evalppl.py"
    if not maker.exists():
        print("scripts/bench: skipped the topic model, its corpus maker is not present", file=sys.stderr)
        return
    corpus = WORK / "corpus"
    if not (corpus / "train.parquet").exists():
        subprocess.run([sys.executable, maker, "--out", corpus], check=True, stdout=subprocess.DEVNULL)
    for optimizer, asked in [("em", "cpu <= 3.5, <= 300 MB, perplexity <= 350"), ("online", "cpu <= 4, perplexity <= 315")]:
        phi = WORK / f"phi.{optimizer}.f32"
        figures, _ = measure([KLIEG, "eval", "topics", "--corpus", corpus / "train.parquet", "--optimizer", optimizer, "--topics", 20,
                              "--iterations", 20, "--models", 1, "--seed", 1, "--threads", 1, "--out", phi], stdout=subprocess.PIPE)
        judged = subprocess.run([sys.executable, judge, phi, corpus, "20"], capture_output=True, text=True)
        row(f"topic model, {optimizer}, one model", figures, perplexity=judged.stdout.strip()[-200:], asked=asked)


def coverage():
    """Share of attack rows whose group, of either end, is among the first of an order."""
    file = SHARED / "data/nfcapd/ctu13-1m.v2.lz4.nfcapd"
    if not file.exists():
        print("scripts/bench: skipped the coverage, the labelled capture is not present", file=sys.stderr)
        return
    warehouse = warehouse_of("labelled", file)
    for model in ["lda", "none"]:
        run(warehouse, "-D", f"suspicious.model={model}")
        shares = python(COVERAGE, warehouse, HIVE_DAY)
        for order, (first, second) in shares.items():
            asked = ">= .85 / .95" if (model, order) == ("lda", "a") else "shown"
            RESULTS.append({"row": f"ctu13-1m, model {model}, {order}: attack rows in 100 / 1,000", "share_100": first,
                            "share_1000": second, "asked": asked})


COVERAGE = """
import glob
import numpy as np, pandas as pd, pyarrow.parquet as pq
root, day = sys.argv[1], sys.argv[2]
names = ['trhour', 'sip', 'dip', 'sport', 'dport', 'proto', 'ipkt', 'ibyt', 'output']
f = pd.concat([pq.ParquetFile(p).read(names).to_pandas() for p in sorted(glob.glob(f'{root}/flow/hive/{day}/h=*/*.parquet'))])
a = f[f.output == 66]
bins = lambda s: np.ceil(np.log2(s.astype(float) + 1)).astype(int).astype(str)
tail = '_' + a.proto + '_' + a.trhour.astype(str) + '_' + bins(a.ibyt) + '_' + bins(a.ipkt)
s, d = a.sport, a.dport
c = np.select([(s == 0) & (d == 0), d == 0, s == 0, (s <= 1024) & (d <= 1024), s <= 1024, d <= 1024], list('zsdbsd'), 'n')
at = lambda own, other, mine, theirs: np.select([c == 'z', c == mine, c == theirs, c == 'b'], ['0', '-1_' + own.astype(str), other.astype(str), '111111'], '333333')
source = a.sip + ' ' + at(s, d, 's', 'd') + tail
destination = a.dip + ' ' + at(d, s, 'd', 's') + tail
g = pq.ParquetFile(glob.glob(f'{root}/flow/hive/oa/groups/{day}/*.parquet')[0]).read().to_pandas()
shares = {}
for order, column in [('list', 'rank'), ('a', 'rank_a'), ('b', 'rank_b'), ('p', 'rank_p')]:
    ranked = g[g[column].notna()].sort_values(column)
    keys = (ranked.ip + ' ' + ranked.word).tolist()
    shares[order] = [round(float((source.isin(set(keys[:n])) | destination.isin(set(keys[:n]))).mean()), 3) for n in (100, 1000)]
print(json.dumps(shares))
"""


def show():
    columns = ["row", "cpu_s", "wall_s", "peak_mb"]
    print(f"{columns[0]:<58} {columns[1]:>8} {columns[2]:>8} {columns[3]:>8}  more")
    for result in RESULTS:
        more = "  ".join(f"{key}={value}" for key, value in result.items() if key not in columns)
        cells = [str(result.get(column, "")) for column in columns]
        print(f"{cells[0]:<58} {cells[1]:>8} {cells[2]:>8} {cells[3]:>8}  {more}")
    (WORK / "results.json").write_text(json.dumps(RESULTS, indent=1))


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Runs klieg and its peers side by side.")
    parser.add_argument("--records", type=int, default=10_000_000, help="records of the large file")
    parser.add_argument("--only", choices=["tables", "topics", "coverage", "cluster", "hadoop"], help="one part")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    parts = {"tables": lambda: tables(args.records), "topics": topics, "coverage": coverage,
             "cluster": lambda: bench_cluster.cluster(sys.modules[__name__], args.records),
             "hadoop": lambda: bench_hadoop.hadoop(sys.modules[__name__], args.records)}
    for name, part in parts.items():
        if args.only in (None, name):
            part()
    show()


if __name__ == "__main__":
    main()
