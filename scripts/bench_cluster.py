"""Rows of the benchmark on workers of this machine: what they cost, what a second one gives, what a kill costs, what they hold in memory."""
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

FILES = 16
SMALL = 200
MANY = 10_000
SLOTS = 500
TIMES = 5
DAY = "2016-07-08"


def files_of(bench, records):
    """A generated day of so many records in 16 files."""
    folder = bench.WORK / f"files-{records}"
    if folder.exists():
        return sorted(folder.iterdir())
    generated = bench.WORK / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    bench.measure([bench.KLIEG, "synth", "--date", DAY, "--flows", records, "--out", generated])
    parts = sorted((generated / "flow/landing").iterdir())
    made = bench.WORK / "files-part"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for index in range(FILES):
        some = parts[index * len(parts) // FILES:(index + 1) * len(parts) // FILES]
        span = f"{some[0]}:{some[-1].name}"
        subprocess.run(["nfdump", "-R", span, "-y", "-w", made / some[0].name], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(generated)
    made.rename(folder)
    return sorted(folder.iterdir())


def warehouse_of(bench, name, files):
    warehouse = bench.WORK / name
    shutil.rmtree(warehouse, ignore_errors=True)
    landing = warehouse / "flow/landing"
    landing.mkdir(parents=True)
    for file in files:
        os.link(file, landing / file.name)
    return warehouse


def children(process):
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []


def held(process, what="VmHWM"):
    """The most that a process has held, MB; or what it holds now, by the name of the kernel; 0 for one that is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    words = [line.split() for line in status.splitlines() if line.startswith(what)]
    return int(words[0][1]) / 1024 if words else 0


class Run:
    """A run with workers, watched: wall seconds, peak MB of the driver and of its largest worker, its report."""

    def __init__(self, bench, warehouse, more, during=None, code=0):
        report = bench.WORK / "run.json"
        command = [bench.KLIEG, "run", bench.ROOT / "jobs/flow.yaml", "--date", DAY, "-D", f"warehouse={warehouse}",
                   "-D", f"work_dir={bench.WORK}/work", "-D", "ingest.settle=0s", "--reprocess", "all", "--output", "json", *more]
        start = time.time()
        with open(report, "wb") as out, open(bench.WORK / "run.log", "wb") as log:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=log)
        if during:
            threading.Thread(target=during, args=(process.pid,), daemon=True).start()
        self.driver = self.worker = self.anonymous = 0
        while process.poll() is None:
            self.driver = max(self.driver, held(process.pid))
            # What is not the page cache of its files.
            self.anonymous = max(self.anonymous, held(process.pid, "RssAnon"))
            self.worker = max([self.worker, *(held(child) for child in children(process.pid))])
            time.sleep(0.1)
        self.wall = time.time() - start
        assert process.returncode == code, (bench.WORK / "run.log").read_text()[-3000:]
        self.steps = json.loads(report.read_bytes())["days"][0]["outcome"]["steps"]

    def work(self):
        return [entry for step in self.steps for entry in step["report"].get("work", [])]

    def seconds(self, plan):
        """Seconds of the stages of a plan."""
        return sum(stage["seconds"] for entry in self.work() if entry["plan"] == plan for stage in entry["stages"])

    def ms_of_task(self):
        """Milliseconds of the stage that decodes, over its tasks."""
        return round(1000 * self.seconds("ingest") / self.work()[0]["stages"][0]["tasks"], 2)

    def figures(self):
        return {"wall_s": round(self.wall, 2), "peak_mb": round(self.driver), "worker_mb": round(self.worker)}


def on(workers):
    """Workers of a slot each; the driver has a thread, however many they are."""
    return ["--threads", 1, "--cluster", f"local:{workers}"]


def in_turn(bench, warehouse, settings, ways):
    """Runs of each way, one after the other, again and again: a slow minute of the machine is in all of them."""
    return zip(*[[Run(bench, warehouse, [*settings, *way]) for way in ways] for _ in range(TIMES)])


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def ratio(runs, others, seconds=lambda run: run.wall):
    """The median of the ratios of runs that followed each other."""
    return round(median([seconds(run) / seconds(other) for run, other in zip(runs, others)]), 2)


def middle(runs):
    """The run of the median time."""
    return sorted(runs, key=lambda run: run.wall)[len(runs) // 2]


def cluster(bench, records):
    warehouse = warehouse_of(bench, "cluster", files_of(bench, records))
    # A file is a split.
    split = ["-D", "ingest.split_bytes=16MiB"]
    local, one, two = in_turn(bench, warehouse, [*split, "--steps", "ingest"], (["--threads", 1], on(1), on(2)))
    bench.row(f"ingest of {records:,} flows in {FILES} files, 1 thread", middle(local).figures())
    bench.row("  the same, 1 worker of 1 slot", middle(one).figures(), ratio_wall=ratio(one, local), asked="wall <= 1.25")
    bench.row("  the same, 2 workers", middle(two).figures(), ratio=ratio(one, two), asked=">= 1.7 against 1 worker")
    ingest_s = middle(two).wall

    there = [*split, "-D", "cluster.train_from=1"]
    one, two = in_turn(bench, warehouse, there, (on(1), on(2)))
    documents = lambda run: run.seconds("documents")
    bench.row("documents, stages of 1 worker", {"wall_s": round(median(map(documents, one)), 2)})
    bench.row("  the same, 2 workers", {"wall_s": round(median(map(documents, two)), 2)}, ratio=ratio(one, two, documents), asked=">= 1.6")
    bench.row("whole job, models on workers, 1 worker", middle(one).figures())
    bench.row("  the same, 2 workers", middle(two).figures(), ratio=ratio(one, two), asked=">= 1.6")

    def kill(driver):
        time.sleep(ingest_s / 2)
        workers = children(driver)
        if workers:
            os.kill(workers[0], signal.SIGKILL)

    killed = Run(bench, warehouse, [*on(2), *there], kill)
    reruns = sum(len(entry["reruns"]) for entry in killed.work())
    assert reruns > 0, "nothing was lost with the worker"
    bench.row("  the same, a worker killed while it decodes", killed.figures(), ratio_wall=round(killed.wall / middle(two).wall, 2), reruns=reruns, asked="<= 2.2")
    one, two = (Run(bench, warehouse, [*on(workers), *split]) for workers in (1, 2))
    bench.row("whole job, models on a thread of the driver, 1 worker", one.figures())
    bench.row("  the same, 2 workers", two.figures(), ratio=round(one.wall / two.wall, 2), asked="shown: a worker more trains nothing")
    for flows in (records // 100, records // 10, records // 3, records, 3 * records):
        line(bench, flows)
    pairs(bench, warehouse)
    memory(bench, 3 * records)
    small(bench)
    idle(bench, warehouse)


def line(bench, records):
    """Models trained in the driver, and on workers that have twice the threads: where they are faster."""
    warehouse = warehouse_of(bench, "line", files_of(bench, records))
    train = ["-D", "suspicious.models=2", "-D", "suspicious.token_models=1", "--threads", 1, "--cluster", "local:2"]
    runs = [Run(bench, warehouse, [*train, "-D", f"cluster.train_from={least}"]) for least in (10**12, 1)]
    # One after the other in the driver, beside each other on workers.
    reports = [run.steps[1]["report"] for run in runs]
    here, there = (how(model["fit_s"] for model in report["models"]) for how, report in zip((sum, max), reports))
    bench.row(f"3 models of {reports[0]['groups']:,} pairs, on a thread of the driver", {"wall_s": round(here, 2)})
    bench.row("  the same, on 2 workers of a slot each", {"wall_s": round(there, 2)}, ratio_wall=round(there / here, 2))


def pairs(bench, warehouse):
    """What a driver without room for its pairs costs."""
    models = ["-D", "suspicious.models=1", "-D", "suspicious.token_models=1", "--steps", "suspicious", "--threads", 2]
    room, none = (Run(bench, warehouse, [*models, "-D", f"memory={size}"]) for size in ("4GiB", "64MiB"))
    bench.row("2 models, pairs in memory", room.figures(), anonymous_mb=round(room.anonymous))
    bench.row("  the same, pairs in files", none.figures(), ratio_wall=round(none.wall / room.wall, 2), anonymous_mb=round(none.anonymous))


def memory(bench, records):
    """A worker of 256 MiB, and a day whose flows take ten times as much as nfcapd keeps them uncompressed."""
    budget = 256
    warehouse = warehouse_of(bench, "memory", files_of(bench, records))
    run = Run(bench, warehouse, [*on(1), "-D", f"memory={budget}MiB", "-D", "suspicious.model=none"])
    raw = subprocess.run(["nfdump", "-R", warehouse / "flow/landing", "-w", bench.WORK / "raw.nfcapd"], stdout=subprocess.DEVNULL, check=True)
    raw = (bench.WORK / "raw.nfcapd").stat().st_size / 2**20
    (bench.WORK / "raw.nfcapd").unlink()
    assert raw >= 10 * budget, f"{raw} MB are no ten times {budget}"
    spilled = sum(stage["spilled_bytes"] for entry in run.work() for stage in entry["stages"])
    bench.row(f"{records:,} flows on a worker of {budget} MiB", run.figures(), raw_mb=round(raw), spilled_mb=round(spilled / 2**20),
              asked=f"worker <= {round(budget * 1.2)} MB")
    warehouse = warehouse_of(bench, "memory", files_of(bench, records // 10))
    train = ["-D", "suspicious.models=1", "-D", "suspicious.token_models=1", "-D", "cluster.train_from=1"]
    run = Run(bench, warehouse, [*on(1), "-D", f"memory={budget}MiB", *train])
    bench.row(f"{records // 10:,} flows and 2 models on a worker of {budget} MiB", run.figures(), asked=f"worker <= {round(budget * 1.2)} MB")


def small(bench):
    """Many files of one split each: what a task costs."""
    generated = bench.WORK / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    bench.measure([bench.KLIEG, "synth", "--date", DAY, "--flows", "100000", "--out", generated])
    parts = sorted((generated / "flow/landing").iterdir())
    settings = ["--steps", "ingest", "-D", "ingest.split_bytes=1"]
    few = Run(bench, warehouse_of(bench, "small", parts[:SMALL]), [*settings, *on(2)])
    bench.row(f"{SMALL} small files, 2 workers", few.figures(), ms_of_task=few.ms_of_task(), asked="<= 30 s")
    smallest = min(parts, key=lambda part: part.stat().st_size)
    copies = bench.WORK / "copies"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    for number in range(MANY):
        shutil.copy(smallest, copies / f"{number:05}.{smallest.name}")
    # Workers of a pool, since those of local:N share the threads of the run.
    warehouse = warehouse_of(bench, "many", sorted(copies.iterdir()))
    workers = [subprocess.Popen([bench.KLIEG, "worker", "--pool", "bench", "--slots", str(SLOTS // 2), "--memory", "64GiB", "-D", f"warehouse={warehouse}",
                                 "-D", f"work_dir={bench.WORK}/worker-{number}"], stderr=subprocess.DEVNULL) for number in (1, 2)]
    many = Run(bench, warehouse, [*settings, "--cluster", "bench", "--min-workers", 2])
    for worker in workers:
        worker.terminate()
        worker.wait()
    bench.row(f"{MANY:,} splits on {SLOTS} slots", many.figures(), ms_of_task=many.ms_of_task(), driver_mb=round(many.driver))
    here = Run(bench, warehouse, [*settings, "--threads", 2])
    bench.row("  the same in this process, 2 threads", here.figures())


def used(process):
    """Seconds of processors that a process and its ended children have taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def idle(bench, warehouse):
    """What a worker costs that looks for a driver, and one whose driver has nothing for it."""
    seconds = 60
    worker = subprocess.Popen([bench.KLIEG, "worker", "--pool", "idle", "-D", f"warehouse={warehouse}", "-D", f"work_dir={bench.WORK}/idle"],
                              stderr=subprocess.DEVNULL)
    time.sleep(5)

    def share():
        processes = [worker.pid, *children(worker.pid)]
        before = sum(map(used, processes))
        time.sleep(seconds)
        return round(100 * (sum(map(used, processes)) - before) / seconds, 3)

    bench.row(f"a worker that looks for a driver, {seconds} s", {"wall_s": seconds}, percent_of_core=share(), asked="< 0.2")
    # It waits for a second worker, which does not come.
    driver = subprocess.Popen([bench.KLIEG, "run", bench.ROOT / "jobs/flow.yaml", "--date", DAY, "-D", f"warehouse={warehouse}", "-D", "ingest.settle=0s",
                               "--cluster", "idle", "--min-workers", "2", "--pool-wait", f"{seconds + 30}s", "--reprocess", "all"], stderr=subprocess.DEVNULL)
    time.sleep(10)
    bench.row(f"a worker whose driver has nothing for it, {seconds} s", {"wall_s": seconds}, percent_of_core=share(), asked="< 0.2")
    driver.terminate()
    driver.wait()
    worker.terminate()
    worker.wait()
