"""Hardtack beside other runtimes: the same networks in INT8, batch 1, on this machine.

    python benches/peers/compare.py [--models A,B] [--peers A,B] [--threads 1,2] [--quick] [--out FOLDER]

Makes a virtual environment of its own, prepares what is missing, measures, and writes `peers.json`,
`peers.md` and `peers.svg`. See the README beside this file.
"""

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tomllib
import venv
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()
# Which runtime of a worker a peer is, and the package whose version counts.
PEERS = {
    "hardtack": ("own", None),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "openvino": ("openvino", "openvino"),
    "openvino-nncf": ("openvino", "nncf"),
    "litert": ("litert", "ai-edge-litert"),
    "ncnn": ("ncnn", "ncnn"),
    "mnn": ("mnn", "mnn"),
    "tract": ("tract", "tract-onnx"),
    "tract-f32": ("tract", "tract-onnx"),
    "rten": ("rten", "rten"),
    "rten-f32": ("rten", "rten"),
}
MODELS = [
    "random_mobilenet_v2", "random_mobilenet_v3_large", "random_efficientnet_b0", "random_resnet18",
    "random_resnet50", "mobilenet_v2_1.0_224", "yolox_nano_416", "ultraface_rfb_320",
    "mlperf_tiny_kws_dscnn", "mlperf_tiny_ic_resnet8", "mlperf_tiny_vww_mobilenet",
    "mlperf_tiny_ad_autoencoder",
]
QUICK_MODELS = ["random_mobilenet_v2", "mlperf_tiny_kws_dscnn"]


def say(words):
    print(words, file=sys.stderr, flush=True)


def parse():
    """The arguments; ends with one sentence where they make no sense."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", metavar="A,B", help="networks of the models folder")
    parser.add_argument("--peers", metavar="A,B", default=",".join(PEERS), help="of " + ", ".join(PEERS))
    parser.add_argument("--threads", metavar="1,2", default="1,2", help="numbers of threads")
    parser.add_argument("--quick", action="store_true", help="two networks, short turns: shows that all works")
    parser.add_argument("--tensorflow", action="store_true", help="install TensorFlow to make .tflite files")
    parser.add_argument("--models-dir", type=Path, default=ROOT.parent / "shared/assets/models")
    parser.add_argument("--hardtack", type=Path, help="the command to measure, beside it the runner; built with cargo where not given")
    parser.add_argument("--out", type=Path, default=TARGET / "peers-results")
    arguments = parser.parse_args()
    models = arguments.models or ",".join(QUICK_MODELS if arguments.quick else MODELS)
    arguments.models = models.split(",")
    arguments.peers = ["hardtack"] + [peer for peer in arguments.peers.split(",") if peer != "hardtack"]
    unknown = [peer for peer in arguments.peers if peer not in PEERS]
    if unknown:
        parser.error(f"there is no peer {unknown[0]}; there are {', '.join(PEERS)}")
    try:
        arguments.threads = [int(count) for count in arguments.threads.split(",")]
    except ValueError:
        parser.error("--threads takes numbers with commas between them")
    if min(arguments.threads) < 1:
        parser.error("--threads takes numbers from one")
    if not arguments.models_dir.is_dir():
        sys.exit(f"There are no models in {arguments.models_dir}; give --models-dir.")
    if arguments.hardtack and not arguments.hardtack.is_file():
        sys.exit(f"There is no command {arguments.hardtack}.")
    absent = [name for name in arguments.models if not (arguments.models_dir / name).is_dir()]
    if absent:
        sys.exit(f"There is no {absent[0]} in {arguments.models_dir}.")
    return arguments


def environment(folder, *requirements):
    """The Python of a virtual environment with packages installed, made when missing or changed.
    Each of `requirements` is a file of requirements and options of pip for it."""
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join((HERE / file).read_text() for file, *_ in requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"installing into {folder} …")
    venv.create(folder, with_pip=True, clear=True)
    for file, *options in requirements:
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, *options, "-r", HERE / file]).returncode:
            sys.exit(f"pip does not install {file}; its words are above.")
    stamp.write_text(wanted)
    return python


def enter_environment():
    """Runs this script again in its own virtual environment, if it is not there."""
    folder = TARGET / "peers-venv"
    python = environment(folder, ["requirements.txt"], ["requirements-nodeps.txt", "--no-deps"])
    if Path(sys.prefix).resolve() != folder.resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def cargo_build(target, *options):
    """Builds in release mode into the folder `target`; the reason if that fails."""
    if shutil.which("cargo") is None:
        return "cargo is not installed"
    line = ["cargo", "build", "--release", "--target-dir", target, *options]
    done = subprocess.run(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    return f"cargo fails: {(errors or ['no reason told'])[0]}" if done.returncode else None


def build_hardtack():
    """The command and the runner as cargo builds them; apart, so that the runner is without tract."""
    say("building hardtack …")
    for package in ("hardtack-cli", "hardtack-runner"):
        problem = cargo_build(TARGET, "-p", package)
        if problem:
            sys.exit(f"{package} was not built: {problem}.")
    return TARGET / "release" / "hardtack"


def build_rust_peers():
    """The program that measures the Rust peers, or the reason why there is none."""
    say("building the Rust peers …")
    folder = TARGET / "peers-rust"
    problem = cargo_build(folder, "--locked", "--manifest-path", HERE / "rust" / "Cargo.toml")
    return folder / "release" / "hardtack-peers", problem


class Comparison:
    """Measures networks with all peers."""

    def __init__(self, arguments, hardtack, rust):
        from measure import QUICK, THOROUGH

        self.peers, self.threads = arguments.peers, arguments.threads
        self.effort = QUICK if arguments.quick else THOROUGH
        self.hardtack, (self.rust, self.rust_problem) = hardtack, rust

    def start(self, peer, file, threads):
        """A process of `peer` that has loaded `file`."""
        from measure import Failed, Own, Worker

        kind = PEERS[peer][0]
        if kind == "own":
            return Own(self.hardtack, self.hardtack.with_name("hardtack-runner"), file, threads)
        if kind in ("tract", "rten"):
            if self.rust_problem:
                raise Failed(self.rust_problem)
            program = [self.rust]
        else:
            program = [sys.executable, HERE / "worker.py"]
        return Worker([*program, "--peer", kind, "--model", file, "--threads", threads])

    def form(self, peer, network):
        """The best form that `peer` really runs."""
        reasons = []
        for make in network.forms(peer):
            try:
                form = make()
                self.start(peer, form.file, 1).close()
            except Exception as error:  # whatever a converter or a runtime says is a result
                words = str(error).strip().splitlines()
                reasons.append(words[0][:240] if words else type(error).__name__)
                continue
            if reasons:
                form.kind += f" (better forms fail: {'; '.join(reasons)})"
            return form
        raise RuntimeError("; ".join(reasons))

    def network(self, network):
        """All measures of one network, by peer."""
        from measure import Failed, cold, latencies

        row, files = {}, {}
        for peer in self.peers:
            say(f"  {peer}")
            try:
                form = self.form(peer, network)
                first = cold(lambda: self.start(peer, form.file, 1), self.effort.cold)
            except (RuntimeError, Failed) as reason:
                row[peer] = {"skipped": str(reason)}
                continue
            files[peer] = form.file
            row[peer] = {"form": form.kind, "file_bytes": form.size, **first, "latency": {}}
        for threads in self.threads:
            say(f"  latency with {threads} thread{'s'[:threads > 1]}")
            # All alive and in turns with one thread. With more, one at a time: the idle threads
            # of some runtimes keep the processor busy.
            groups = [list(files)] if threads == 1 else [[peer] for peer in files]
            for group in groups:
                with contextlib.ExitStack() as stack:
                    processes = {}
                    for peer in group:
                        try:
                            processes[peer] = self.start(peer, files[peer], threads)
                        except Failed as reason:
                            row[peer]["latency"][str(threads)] = {"failed": str(reason)}
                            continue
                        stack.callback(processes[peer].close)
                    for peer, latency in latencies(processes, self.effort).items():
                        row[peer]["latency"][str(threads)] = latency
        return row


def machine():
    """What this machine calls its processor, and how many cores it lends."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions(peers, hardtack):
    """The version of each peer."""
    lock = tomllib.loads((HERE / "rust" / "Cargo.lock").read_text())
    crates = {package["name"]: package["version"] for package in lock["package"]}
    words = subprocess.run([hardtack, "--version"], capture_output=True, text=True).stdout.split()
    told = {"hardtack": words[-1] if words else "unknown"}
    for peer in peers[1:]:
        _, package = PEERS[peer]
        told[peer] = crates[package] if package in crates else importlib.metadata.version(package)
    return told


def main():
    arguments = parse()
    enter_environment()

    from prepare import Network
    from report import write

    logging.disable(logging.WARNING)
    os.environ["CI"] = "true"  # then OpenVINO and NNCF send no usage data
    hardtack = (arguments.hardtack or build_hardtack()).absolute()
    needs_rust = any(PEERS[peer][0] in ("tract", "rten") for peer in arguments.peers)
    rust = build_rust_peers() if needs_rust else (None, None)
    tensorflow = None
    if arguments.tensorflow:
        tensorflow = environment(TARGET / "peers-tensorflow", ["requirements-tensorflow.txt"])
    comparison = Comparison(arguments, hardtack, rust)
    results = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_before": os.getloadavg()[0],
        "quick": arguments.quick,
        "versions": versions(arguments.peers, hardtack),
        "threads": arguments.threads,
        "models": {},
    }
    for name in arguments.models:
        say(f"{name} …")
        network = Network(arguments.models_dir / name, TARGET / "peers-work", hardtack, tensorflow)
        results["models"][name] = comparison.network(network)
        text = write(results, arguments.out)
    print(text)


if __name__ == "__main__":
    main()
