"""Hardtack beside other runtimes: the same networks in INT8, batch 1, on this machine.

    python benches/peers/compare.py [--models A,B] [--peers A,B] [--threads 1,2] [--out FOLDER]

Makes a virtual environment of its own, quantizes what is missing, measures, and writes
`peers.json`, `peers.md` and `peers.svg`. See the README beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PEERS = ["hardtack", "onnxruntime", "openvino", "litert"]
MODELS = [
    "random_mobilenet_v2", "random_mobilenet_v3_large", "random_efficientnet_b0", "random_resnet18",
    "random_resnet50", "yolox_nano_416", "ultraface_rfb_320", "mlperf_tiny_kws_dscnn",
    "mlperf_tiny_ic_resnet8", "mlperf_tiny_vww_mobilenet", "mlperf_tiny_ad_autoencoder",
]
# A measurement takes turns so often, each peer some runs at a time.
ROUNDS, RUNS = 15, 12


def environment():
    """Runs this script again in its own virtual environment, with the peers installed."""
    folder = TARGET / "peers" / "venv"
    python = folder / "bin" / "python"
    if Path(sys.prefix) == folder:
        return
    if not python.exists():
        print("installing the peers …", file=sys.stderr)
        venv.create(folder, with_pip=True)
        requirements = HERE / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


class Worker:
    """A peer in a process of its own."""

    def __init__(self, peer, model, threads):
        command = [sys.executable, HERE / "worker.py", peer, model, str(threads)]
        pipe = subprocess.PIPE
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().splitlines() or ["it says nothing"]
            raise RuntimeError(f"does not run: {lines[-1][:200]}")
        self.first = json.loads(line)

    def times(self, runs):
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Own:
    """Hardtack: each turn is a process, which warms up before it measures."""

    def __init__(self, hardtack, model, threads):
        self.command = [hardtack, "bench", model, "--threads", str(threads), "--json", "--runs"]
        report = self.report(1)
        self.first = {"first_result_ms": report["first_result_ms"], "memory": report["peak_rss_bytes"]}

    def report(self, runs):
        done = subprocess.run([*self.command, str(runs)], check=True, capture_output=True)
        return json.loads(done.stdout)

    def times(self, runs):
        # A new process needs some runs until the system has spread its threads.
        return [self.report(runs * 20)["latency_ms"]["p50"] * 1e3]

    def close(self):
        pass


def measure(workers):
    """The median microseconds of each, in turns."""
    times = {peer: [] for peer in workers}
    for _ in range(ROUNDS):
        for peer, worker in workers.items():
            times[peer].append(statistics.median(worker.times(RUNS)))
    return {peer: statistics.median(values) for peer, values in times.items()}


def compare(name, folder, peers, threads, work, hardtack):
    """All measures of one model, by peer."""
    from prepare import Skipped, form

    row, files = {}, {}
    for peer in peers:
        try:
            files[peer] = form(peer, name, folder, work, hardtack)
            row[peer] = {"file (bytes)": files[peer].stat().st_size}
        except Skipped as reason:
            row[peer] = {"skipped": str(reason)}
        except Exception as error:  # a converter's error is a result, too
            row[peer] = {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0]}"}

    def start(peer, count):
        if peer == "hardtack":
            return Own(hardtack, files[peer], count)
        return Worker(peer, files[peer], count)

    for count in threads:
        workers = {}
        for peer in list(files):
            try:
                worker = start(peer, count)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                row[peer] = {"skipped": str(error)}
                del files[peer]
                continue
            if count == 1:
                row[peer]["load and first result, 1 thread (ms)"] = worker.first["first_result_ms"]
                row[peer]["memory (bytes)"] = worker.first["memory"]
                workers[peer] = worker
            else:
                # Idle threads of one runtime may keep the processor busy: one at a time.
                latency = measure({peer: worker})[peer]
                row[peer][f"latency, {count} threads (µs)"] = latency
                worker.close()
        for peer, latency in (measure(workers) if workers else {}).items():
            row[peer]["latency, 1 thread (µs)"] = latency
            workers[peer].close()
    return row


def machine():
    """What this machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--assets", type=Path, default=ROOT / "../shared/assets/models")
    parser.add_argument("--out", type=Path, default=TARGET / "peers" / "results")
    arguments = parser.parse_args()
    if not arguments.assets.is_dir():
        sys.exit(f"skipped: there are no models in {arguments.assets}; give --assets")
    environment()

    from report import write

    work = TARGET / "peers" / "models"
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cargo", "build", "--release", "-p", "hardtack-cli"], cwd=ROOT, check=True)
    hardtack = TARGET / "release" / "hardtack"
    peers = ["hardtack"] + [peer for peer in arguments.peers.split(",") if peer != "hardtack"]
    threads = [int(count) for count in arguments.threads.split(",")]
    results = {"machine": machine(), "models": {}}
    for name in arguments.models.split(","):
        print(f"{name} …", file=sys.stderr)
        folder = arguments.assets / name
        results["models"][name] = compare(name, folder, peers, threads, work, hardtack)
        text = write(results, peers, arguments.out)
    print(text)


if __name__ == "__main__":
    main()
