"""Runs a day on a pool of two workers again and again, each time with a fault at a random instant, and compares what is published with
what one process publishes. Faults: SIGKILL of a worker's process, of both, of the driver; SIGSTOP of a worker for longer than the
time-out; SIGTERM of a worker. Workers that are gone are started again. Prints runs, faults by kind, reruns, mismatches.
"""

import collections
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KLIEG = os.environ.get("KLIEG", str(ROOT / "target/release/klieg"))
DAY = "2016-07-08"
TOPS = ["flow/hive", "flow/scored_results", "flow/model"]
SETTINGS = ["ingest.settle=0s", "ingest.split_bytes=256KiB", "suspicious.models=1", "suspicious.token_models=1", "cluster.worker_timeout=7s"]
FAULTS = ["kill one", "kill both", "kill driver", "stop one", "term one", "none"]


class Site:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.common = ["-D", f"warehouse={folder}/warehouse"] + [part for setting in SETTINGS for part in ("-D", setting)]
        subprocess.run([KLIEG, "synth", "--date", DAY, "--flows", "6000", "--out", f"{folder}/warehouse"], check=True, stdout=subprocess.DEVNULL)
        self.workers, self.leaving = {}, set()
        self.run([]).wait()
        self.wanted = self.published()
        assert self.wanted, "nothing was published"

    def run(self, more):
        command = [KLIEG, "run", str(ROOT / "jobs/flow.yaml"), "--date", DAY, "-D", f"work_dir={self.folder}/work", *self.common, *more]
        log = open(self.folder / "run.log", "w")
        return subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL)

    def published(self):
        warehouse = self.folder / "warehouse"
        files = [path for top in TOPS for path in (warehouse / top).rglob("*") if path.is_file() and path.name != "_manifest.json"]
        return {str(path.relative_to(warehouse)): path.read_bytes() for path in files}

    def clear(self):
        for top in TOPS:
            shutil.rmtree(self.folder / "warehouse" / top, ignore_errors=True)

    def tend(self):
        for name in ("one", "two"):
            if name in self.leaving:
                # It may still finish its task, and takes no other.
                self.workers[name].wait()
            self.leaving.discard(name)
            if name not in self.workers or self.workers[name].poll() is not None:
                command = [KLIEG, "worker", "--pool", "soak", "--slots", "1", "--memory", "512MiB", "-D", f"work_dir={self.folder}/{name}", *self.common]
                self.workers[name] = subprocess.Popen(command, stderr=open(self.folder / f"{name}.log", "a"))

    def told(self):
        return (self.folder / "run.log").read_text()

    def reruns(self):
        return len(re.findall("begun again", self.told()))

    def children(self, name):
        told = subprocess.run(["pgrep", "-P", str(self.workers[name].pid)], capture_output=True, text=True).stdout
        return [int(word) for word in told.split()]

    def signal(self, names, kind):
        for process in [process for name in names for process in self.children(name)]:
            try:
                os.kill(process, kind)
            except ProcessLookupError:
                pass


def main():
    minutes, dice = float(os.environ.get("MINUTES", "10")), random.Random(int((sys.argv[1:] or ["1"])[0]))
    faults, runs, reruns, mismatches, failures = collections.Counter(), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        site, end = Site(folder), time.time() + 60 * minutes
        longest = 3.0
        while time.time() < end:
            site.clear()
            site.tend()
            fault, start = dice.choice(FAULTS), time.time()
            # Half of the runs train on workers too.
            pool = ["--cluster", "soak", "--pool-wait", "60s", "-D", f"cluster.train_from={dice.choice([1, 10**12])}"]
            run = site.run(pool)
            time.sleep(dice.uniform(0.2, longest))
            if run.poll() is None:
                faults[fault] += 1
                name = dice.choice(["one", "two"])
                if fault == "kill driver":
                    run.kill()
                elif fault == "term one":
                    site.workers[name].send_signal(signal.SIGTERM)
                    site.leaving.add(name)
                elif fault == "stop one":
                    site.signal([name], signal.SIGSTOP)
                    time.sleep(9)
                    site.signal([name], signal.SIGCONT)
                elif fault != "none":
                    site.signal([name] if fault == "kill one" else ["one", "two"], signal.SIGKILL)
            code = run.wait()
            runs += 1
            if fault == "kill driver" and code:
                reruns += site.reruns()
                site.tend()
                code = site.run(pool).wait()
            told = site.told()
            reruns += site.reruns()
            if code:
                failures += 1
                print(f"failed with {code} after {fault}: {told[-600:]}", file=sys.stderr)
            elif site.published() != site.wanted:
                mismatches += 1
                print(f"mismatch after {fault}: {told[-600:]}", file=sys.stderr)
            if fault == "none":
                longest = max(1.0, time.time() - start)
        for worker in site.workers.values():
            worker.terminate()
            worker.wait()
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    print(f"soak of {minutes:g} minutes: {runs} runs; {kinds}; {reruns} reruns; {failures} failed runs; {mismatches} mismatches")
    sys.exit(1 if mismatches or failures else 0)


if __name__ == "__main__":
    main()
