"""Processes that run one network, and how they are measured."""

import json
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

# After so many seconds without an answer a process has failed.
PATIENCE = 180


class Failed(Exception):
    """Why a process gives no measurement."""


@dataclass
class Effort:
    """How long to measure: rounds, seconds of a turn, and processes for a cold start."""

    rounds: int
    turn: float
    cold: int


THOROUGH = Effort(rounds=15, turn=0.15, cold=5)
QUICK = Effort(rounds=5, turn=0.04, cold=3)


class Worker:
    """A peer in a process that stays; see `worker.py` for what it says."""

    def __init__(self, command):
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        pipe = subprocess.PIPE
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=pipe, stdout=pipe, stderr=self.errors, text=True,
        )
        try:
            told = json.loads(self.answer("ready "))
            ready = (time.perf_counter() - began) * 1e3
            peak = self.peak()
        except BaseException:
            self.close()
            raise
        first = (told["load_us"] + told["first_us"]) / 1e3
        self.first = {
            "start_ms": ready - told["feed_us"] / 1e3 - first,
            "import_ms": told["import_us"] / 1e3,
            "load_ms": told["load_us"] / 1e3,
            "first_result_ms": first,
            "cold_ms": ready - told["feed_us"] / 1e3,
            "peak_rss_bytes": peak,
            "memory_bytes": peak - told["bare_bytes"],
        }

    def answer(self, prefix=""):
        """The next line that begins with `prefix`, without it; runtimes chat on stdout, too."""
        timer = threading.Timer(PATIENCE, self.process.kill)
        began = time.monotonic()
        timer.start()
        try:
            for line in self.process.stdout:
                if line.startswith(prefix):
                    return line.removeprefix(prefix)
        finally:
            timer.cancel()
        code = self.process.wait()
        if time.monotonic() - began > PATIENCE:
            raise Failed(f"does not run: no answer within {PATIENCE} seconds")
        if code < 0:
            raise Failed(f"does not run: it ended by {signal.Signals(-code).name}")
        self.errors.seek(0)
        words = [line for line in self.errors.read().splitlines() if line.strip()]
        last = words[-1].strip() if words else f"it ended with exit code {code}"
        raise Failed(f"does not run: {last[:200]}")

    def peak(self):
        """The most memory that the process held so far, in bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def run(self, count):
        """The median time of so many inferences, in microseconds."""
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        while True:
            try:
                times = [float(word) for word in self.answer().split()]
            except ValueError:
                continue
            if len(times) == count:
                return statistics.median(times)

    def typical(self):
        """About how long an inference takes, in microseconds."""
        return self.run(5)

    def close(self):
        """Ends the process."""
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Own:
    """Hardtack: each turn is a process that warms up before it measures: the runner, which is what
    goes onto a device, or where the model is not integer throughout, `hardtack bench`."""

    def __init__(self, hardtack, runner, bundle, threads):
        self.command = [str(runner), "--bench", str(bundle), "--threads", str(threads)]
        try:
            self.report("--runs", "1")
        except Failed:
            self.command = [str(hardtack), "bench", str(bundle), "--threads", str(threads), "--json"]
        began = time.perf_counter()
        subprocess.run([self.command[0], "--help"], capture_output=True)
        start = (time.perf_counter() - began) * 1e3
        report = self.report("--runs", "1")
        self.first = {
            "start_ms": start,
            "load_ms": report["load_ms"],
            "first_result_ms": report["first_result_ms"],
            "cold_ms": start + report["first_result_ms"],
            "peak_rss_bytes": report["peak_rss_bytes"],
            "memory_bytes": report["peak_rss_bytes"],
            "arena_bytes": report["arena_bytes"],
            "isa": report["isa"],
        }

    def report(self, *options):
        try:
            done = subprocess.run([*self.command, *options], capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"does not run: no answer within {PATIENCE} seconds") from None
        if done.returncode:
            words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise Failed(f"does not run: {words[-1][:200]}")
        return json.loads(done.stdout)

    def run(self, count):
        return self.report("--runs", str(count))["latency_ms"]["p50"] * 1e3

    def typical(self):
        return self.report()["latency_ms"]["p50"] * 1e3

    def close(self):
        """Nothing is left to end."""


def cold(start, times):
    """The medians of what fresh processes tell of their first result, and the last one's numbers
    for what is no time."""
    told = []
    for _ in range(times):
        process = start()
        told.append(process.first)
        process.close()
    return {
        name: statistics.median(first[name] for first in told) if isinstance(value, float) else value
        for name, value in told[-1].items()
    }


def latencies(processes, effort):
    """Of each process, in turns: the median and the tenth percentile, over the rounds, of the
    medians of its turns, in microseconds; or why it failed."""
    counts, turns, failed = {}, {name: [] for name in processes}, {}
    for round_ in range(-1, effort.rounds):
        for name, process in processes.items():
            if name in failed:
                continue
            try:
                if round_ < 0:  # warms up, and finds how many inferences make a turn
                    counts[name] = min(max(round(effort.turn * 1e6 / process.typical()), 5), 20_000)
                else:
                    turns[name].append(process.run(counts[name]))
            except Failed as reason:
                failed[name] = str(reason)
    return {
        name: {"failed": failed[name]} if name in failed else {
            "median_us": statistics.median(values), "p10_us": sorted(values)[len(values) // 10],
            "rounds": len(values), "runs_of_a_round": counts[name],
        }
        for name, values in turns.items()
    }
