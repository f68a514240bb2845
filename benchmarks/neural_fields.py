"""Time neural fields beside PyTorch, and generate the tables of docs/guides/neural-fields.md.

python -m benchmarks.neural_fields             time both in turn; write the result file and the tables
python -m benchmarks.neural_fields --table     write only the tables, from the result files

`python -m examples.neural_fields --cifar FOLDER --steps 10000 --out benchmarks/results/neural-fields.json` measures
the accuracy.
"""

import argparse
import json
import statistics
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from examples.neural_fields.pictures import Pictures, load
from examples.neural_fields.siren import error, siren
from jaxtyping import Array

import innerloop as il
from benchmarks.accuracy.tables import between_markers, table
from benchmarks.provenance import circumstances
from benchmarks.speed.process import ContenderProcess, peers_python
from benchmarks.speed.runner import relative_error
from benchmarks.speed.worker_protocol import serve

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "neural-fields.md"
WORKLOAD = {"steps": 3, "rate": 3.0, "tasks": 16, "side": 16, "width": 64, "depth": 4, "latent": 128}
ROUNDS = 15
PER_DISPATCH = 10


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Parameters or their gradients under the peer's names."""
    named = {"shifts": tree["shifts"], "out_weight": tree["out"].weight, "out_bias": tree["out"].bias}
    for i, one in enumerate(tree["layers"]):
        named |= {f"weight{i}": one.weight, f"bias{i}": one.bias}
    return {name: np.asarray(x) for name, x in named.items()}


class Ours:
    """Meta-steps by `OuterLoop`, with the tasks split over the cores."""

    def __init__(self, threads: int):
        il.use_cores(threads)

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Initialise the weights, use glyphs as pictures, and write both for the peer."""
        w = workload
        self.pictures = load(None, w["side"])[0]
        self.params = siren(jax.random.key(0), w["width"], w["depth"], 1, w["latent"])
        algorithm = il.cavia(error, il.InnerLoop(optax.sgd(w["rate"]), w["steps"], unroll=w["steps"]))
        self.algorithm, self.tasks = algorithm, w["tasks"]
        self.loop = il.OuterLoop(algorithm, optax.adam(1e-4), self.pictures, meta_batch=w["tasks"], chunk=1)
        self.state = self.loop.init(self.params, jax.random.key(1))
        arrays = {"places": self.pictures.places, "pictures": self.pictures.pictures}
        np.savez(problem, **flat(self.params), **arrays)  # pyright: ignore[reportArgumentType]
        self.steps(PER_DISPATCH)  # compiles
        return {"versions": {"jax": jax.__version__}}

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Write the mean meta-gradient on the first pictures."""
        with jax.enable_x64(double):
            wide = lambda x: x.astype("float64") if double else x
            params, pictures = jax.tree.map(wide, self.params), jax.tree.map(wide, self.pictures)

            def one(number: Array) -> Any:
                return self.algorithm.meta_grad(params, Pictures(*pictures).task(number))[0]

            found = jax.jit(jax.vmap(one))(np.arange(self.tasks))
            mean = jax.tree.map(lambda x: x.mean(axis=0), found)
        np.savez(path, **flat(mean))  # pyright: ignore[reportArgumentType]
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Run meta-steps on freshly drawn pictures."""
        start = time.perf_counter()
        for _ in range(count // PER_DISPATCH):
            self.state, info = self.loop.run(self.state, PER_DISPATCH)
            jax.block_until_ready(info)
        return {"seconds": time.perf_counter() - start}


def race(threads: int) -> dict[str, Any]:
    """Compare the two gradients, then time both in turn; medians in seconds per step."""
    commands = {
        "ours": [sys.executable, "-m", "benchmarks.neural_fields", "--serve", str(threads)],
        "pytorch": [str(peers_python()), "-m", "benchmarks.speed.peers.fields", str(threads)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        at = lambda name: Path(folder) / name
        both = {name: ContenderProcess(name, argv, at(f"{name}.log")) for name, argv in commands.items()}
        try:
            for name, one in both.items():
                made = one.ask("load", workload=WORKLOAD, problem=str(at("problem.npz")))
                versions |= made["versions"]
                one.ask("gradient", path=str(at(f"{name}.npz")), double=True)
                one.ask("steps", count=PER_DISPATCH)
            apart = relative_error(str(at("pytorch.npz")), str(at("ours.npz")))
            assert apart < 1e-9, f"the gradients differ by {apart:.2g}, relative to ours"
            for _ in range(ROUNDS):
                for name, one in both.items():
                    times[name].append(one.ask("steps", count=PER_DISPATCH)["seconds"] / PER_DISPATCH)
        finally:
            for one in both.values():
                one.close()
    median = {name: statistics.median(each) for name, each in times.items()}
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["pytorch"], strict=True)]
    found = {"seconds": median, "ratio": statistics.median(ratios), "gradients_apart": apart}
    found["versions"] = versions
    return {"threads": threads, **WORKLOAD, **found, **circumstances()}


def psnr(record: dict[str, Any]) -> str:
    """PSNR of both kinds of field by number of steps."""
    shown = lambda name, at: "{:.2f} ± {:.2f}".format(*record[name]["psnr"][at])
    steps = ("0", "1", "2", "3", "10")
    rows = [[name, *(shown(name, at) for at in steps)] for name in ("latents", "all weights")]
    return table(["adapted", "start", "1 step", "2 steps", "3 steps", "10 steps"], rows)


def speed(record: dict[str, Any]) -> str:
    """Milliseconds per step, and the ratio."""
    ms = {name: f"{1e3 * seconds:.1f} ms" for name, seconds in record["seconds"].items()}
    rows = [[str(record["threads"]), ms["ours"], ms["pytorch"], f"{record['ratio']:.2f}"]]
    return table(["threads", "innerloop", "PyTorch", "ratio"], rows)


def made(record: dict[str, Any]) -> str:
    """The date and the settings of the measurement."""
    return textwrap.fill(
        f"Measured {record['date']}: {record['updates']} updates of {record['meta_batch']} pictures, {record['depth']} "
        f"layers of {record['width']} units, a latent of {record['latent']}, one seed.",
        width=118,
    )


def write_page() -> None:
    """Write all tables between their markers on the page."""
    read = lambda name: json.loads((RESULTS / name).read_text(encoding="utf-8"))
    accuracy = read("neural-fields.json")
    between_markers(PAGE, "neural-fields-psnr", psnr(accuracy))
    between_markers(PAGE, "neural-fields-made", made(accuracy) + "\n")
    between_markers(PAGE, "neural-fields-speed", speed(read("neural-fields-speed.json")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="write the tables without timing")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.serve is not None:
        return serve(lambda: Ours(asked.serve), asked.serve)
    if asked.threads < 1:
        parser.error(f"--threads must be 1 or more; got {asked.threads}")
    timed = RESULTS / "neural-fields-speed.json"
    if not asked.table:
        timed.write_text(json.dumps(race(asked.threads), indent=1) + "\n", encoding="utf-8")
    write_page()
    return None


if __name__ == "__main__":
    main()
