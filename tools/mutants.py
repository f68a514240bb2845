"""Mutation testing: make small wrong changes to the source, and run the tests nearest to each.

    make mutants                                # all files of `NEAREST`, and the table of docs/reference/reliability.md
    python -m tools.mutants 'engine/*'          # some of them
    python -m tools.mutants --survivors         # retry the changes that no test found

Cosmic Ray makes the changes, of which a deterministic sample is tried for each file. Each change is made in a copy of
the source. Its tests run in a fork of a process that has imported JAX, and stop at the first failure. Compiled programs
are kept between runs. For a survivor without effect, the field `why` in the result file gives the reason, which later
runs keep.
"""

import argparse
import ast
import datetime
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src", "innerloop")
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
PER_FILE = 4
"""Most changes tried per file."""

WORKERS = int(os.environ.get("WORKERS", "2"))
SHARED = (
    "jax",
    "optax",
    "equinox",
    "jaxtyping",
    "beartype",
    "hypothesis",
    "pytest",
    "scipy.stats",
    "orbax.checkpoint",
)
"""Imported once for all runs. Nothing is computed before the fork, because JAX's threads do not survive it."""

ENGINE = {
    "algorithm": "numeric/test_quadratic numeric/test_inner_derivative numeric/test_losses_with_more",
    "chunking": "numeric/test_outer_mean engine/test_outer::test_invalid_meta_batch_or_chunk_raises",
    "counted_scan": "engine/test_outer",
    "custom_rules": "numeric/test_mixed_mode_limits",
    "diagnosis": "engine/test_nonfinite",
    "distribution": "engine/test_distribution properties/test_user_objects",
    "eager": "engine/test_algorithm_everywhere engine/test_compile_once",
    "evaluate": "engine/test_evaluate engine/test_own_data engine/test_nonfinite",
    "inner": "engine/test_inner numeric/test_quadratic numeric/test_long_and_streamed_loops",
    "inner_step": "engine/test_inner numeric/test_quadratic numeric/test_losses_with_more",
    "intervals": "engine/test_intervals",
    "jaxprs": "engine/test_learning_check numeric/test_mixed_mode_limits numeric/test_derivative_modes",
    "learned_rates": "numeric/test_learned_rates",
    "learning_check": "engine/test_learning_check",
    "loop_invariants": "numeric/test_derivative_modes",
    "loss": "engine/test_inner numeric/test_losses_with_more",
    "loss_errors": "engine/test_learning_check",
    "meta_state": "engine/test_outer",
    "mixed_mode": "numeric/test_derivative_modes numeric/test_mixed_mode_limits numeric/test_losses_with_more",
    "nested_scan": "numeric/test_long_and_streamed_loops",
    "optimizer": "engine/test_outer_optimizer",
    "outer": "numeric/test_outer_mean engine/test_outer_optimizer engine/test_outer engine/test_nonfinite",
    "persistent_adam": "engine/test_outer_optimizer numeric/test_persistent_adam",
    "pytree": "engine/test_pytree engine/test_inner properties/test_user_objects nn/test_models",
    "safe_roots": "numeric/test_long_and_streamed_loops",
    "scores": "properties/test_user_objects",
    "task_list": "engine/test_own_data",
}
ALGORITHMS = {
    "anil": "numeric/test_inner_derivative",
    "boil": "numeric/test_inner_derivative",
    "cavia": "numeric/test_context_and_streams",
    "fomaml": "numeric/test_quadratic numeric/test_inner_derivative",
    "imaml": "numeric/test_implicit",
    "joint": "numeric/test_quadratic numeric/test_inner_derivative",
    "maml": "numeric/test_quadratic numeric/test_inner_derivative",
    "maml_plus_plus": "numeric/test_learned_rates",
    "meta_sgd": "numeric/test_learned_rates",
    "online_maml": "numeric/test_context_and_streams",
    "protomaml": "numeric/test_protomaml",
    "reptile": "numeric/test_quadratic numeric/test_persistent_adam",
    "testing/contract": "algorithms/test_contract",
    "testing/explanation": "algorithms/test_meta_gradient",
    "testing/meta_gradient": "algorithms/test_meta_gradient",
}
TASKS = {
    "class_arrays": "tasks/test_episodes tasks/datasets/test_class_arrays",
    "device_examples": "tasks/test_device_examples",
    "episodes": "tasks/test_episodes tasks/test_episode_properties",
    "prefetch": "tasks/streaming/test_streaming",
    "sinusoid": "tasks/test_sinusoid",
    "supervised": "tasks/test_supervised",
}
POLICIES = {
    "advantages": "rl/test_advantages",
    "baseline": "rl/test_advantages rl/test_roots",
    "distributions": "rl/test_natural_gradient rl/test_roots",
    "sample_processor": "rl/test_sampler rl/test_surrogates",
    "surrogates/dice": "rl/test_surrogates",
    "surrogates/importance_ratio": "rl/test_surrogates",
    "surrogates/ppo_clip": "rl/test_surrogates",
    "surrogates/reinforce": "rl/test_surrogates",
}
PACKAGES = {
    "engine": ENGINE,
    "algorithms": ALGORITHMS,
    "tasks": TASKS,
    "rl": POLICIES,
    "training": {"measure": "training/test_measure"},
}


def _path(name: str) -> str:
    """The pytest path of `engine/test_inner` or `engine/test_inner::test_invalid_settings_raise`."""
    file, *test = name.split("::")
    return "::".join([f"tests/{file}.py", *test])


NEAREST = {
    f"{package}/{module}.py": " ".join(_path(name) for name in tests.split())
    for package, modules in PACKAGES.items()
    for module, tests in modules.items()
}
"""File in the package -> its tests, the fastest first."""

OPERATORS = (
    r"core/ReplaceBinaryOperator_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(Add|Sub|Mul|Div)",
    r"core/ReplaceBinaryOperator_(BitAnd_BitOr|BitOr_BitAnd)",
    r"core/ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Eq|NotEq|Lt|LtE|Gt|GtE)",
    r"core/ReplaceComparisonOperator_(Is_IsNot|IsNot_Is|In_NotIn|NotIn_In)",
    r"core/ReplaceUnaryOperator_.*",
    r"core/(AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd)",
    r"core/(ReplaceBreakWithContinue|ReplaceContinueWithBreak|NumberReplacer|ZeroIterationForLoop)",
    r"calls/OmitKeyword",
)
"""Cosmic Ray's operators whose code still runs; any test would find, say, `x >> y` for floats."""


@dataclass(frozen=True)
class Change:
    """One change to one file: Cosmic Ray's operator, and the index of the place where it applies."""

    file: str
    operator: str
    occurrence: int


class CallOperators:
    """An operator that Cosmic Ray lacks: omit a keyword argument of a call, so that it takes its default."""

    def __iter__(self):
        return iter(["OmitKeyword"])

    def __getitem__(self, name: str) -> type:
        return _omit_keyword()


def _omit_keyword() -> type:
    """The operator class; in a function, because Cosmic Ray is installed only for this command."""
    from cosmic_ray.operators.operator import Operator

    keywords = lambda node: [
        child
        for child in (node.children if node.type in ("arglist", "trailer") else ())
        if child.type == "argument"
        and child.children[1].type == "operator"
        and child.children[1].value == "="
    ]

    class OmitKeyword(Operator):
        def mutation_positions(self, node: Any) -> Any:
            return ((child.start_pos, child.end_pos) for child in keywords(node))

        def mutate(self, node: Any, index: int) -> Any:
            at = node.children.index(keywords(node)[index])
            comma = lambda i: 0 <= i < len(node.children) and node.children[i].type == "operator"
            before = comma(at - 1) and node.children[at - 1].value == ","
            del node.children[at - before : at + 1]
            return node

        @classmethod
        def examples(cls) -> tuple:
            return ()

    return OmitKeyword


def unseen(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans of annotations and error messages, which are not mutated: tests match messages only in part."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InnerloopError":
            parts += [*node.args, *node.keywords]
        for part in parts:
            if part is not None:
                found.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return found


@lru_cache
def changes_of(file: str, maximum: int) -> list[Change]:
    """The sample of changes to one file."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import use_db

    path = ROOT / SOURCE / file
    spans = unseen(path.read_text())
    found = []
    with tempfile.TemporaryDirectory() as folder, use_db(str(Path(folder, "session.sqlite"))) as db:
        init([path], db, {})
        for item in db.work_items:
            (made,) = item.mutations
            hidden = any(begin <= tuple(made.start_pos) < end for begin, end in spans)
            if not hidden and any(re.fullmatch(o, made.operator_name) for o in OPERATORS):
                found.append(Change(file, made.operator_name, made.occurrence))
    by_hash = lambda c: hashlib.sha256(f"{c.file} {c.operator} {c.occurrence}".encode()).hexdigest()
    runs = (change for change in sorted(found, key=by_hash) if _is_sound(path.read_text(), change))
    return list(islice(runs, maximum))


def _is_sound(source: str, change: Change) -> bool:
    """Whether the changed code parses with all signatures intact: Cosmic Ray can mistake a bare `*` for a product."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    def signatures(code: str) -> list[tuple[int, int]]:
        nodes = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.arguments))
        return [(len(node.posonlyargs), len(node.kwonlyargs)) for node in nodes]

    try:
        changed = signatures(mutate_code(source, get_operator(change.operator)(), change.occurrence))
    except SyntaxError:
        return False
    return changed == signatures(source)


def copy_source(folder: Path) -> None:
    """Copy what the tests need, with file times in the past, so that a change is newer than any bytecode."""
    for name in ("src", "tests", "benchmarks", "examples", "tools", "pyproject.toml"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*.py"):
        os.utime(path, (0, 0))


def begin_worker(folder: str) -> None:
    """Give the worker its own copy of the source."""
    own = Path(folder, f"copy-{os.getpid()}")
    own.mkdir()
    copy_source(own)
    os.chdir(own)


def run_tests(tests: str, log: Path, bytecode: bool) -> None:
    """Run the tests in a fork up to the first failure, and exit the process."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path[:0] = [str(Path("src").resolve()), str(Path.cwd())]
    sys.dont_write_bytecode = not bytecode
    import pytest

    options = ["-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for plugins that are already imported
    code = pytest.main([*options, *tests.split()])
    sys.stdout.flush()
    os._exit(int(code))


def tried(tests: str, timeout: float, bytecode: bool = False) -> tuple[int | None, str, float]:
    """Run the tests; return the exit code (None on timeout), the first failed test and the seconds."""
    log, begun = Path("log.txt"), time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests, log, bytecode))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, about forks of a multithreaded process
        process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return None, "time ran out", timeout
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.MULTILINE)
    return process.exitcode, failed[1] if failed else "", time.monotonic() - begun


def unchanged(tests: str) -> tuple[str, float]:
    """Time the tests without any change. Raises SystemExit if they fail."""
    code, failed, seconds = tried(tests, 1800, bytecode=True)
    if code:
        raise SystemExit(f"{failed or code} without any change:\n{Path('log.txt').read_text()}")
    return tests, seconds


def outcome(change: Change, tests: str, timeout: float) -> dict[str, Any]:
    """Make one change, and check whether a test finds it."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import use_mutation

    plugins.OPERATOR_PROVIDERS["calls"] = CallOperators()
    path = SOURCE / change.file
    with use_mutation(path, plugins.get_operator(change.operator)(), change.occurrence) as (before, after):
        code, failed, seconds = tried(tests, timeout)
    os.utime(path, (0, 0))
    lines = [text.splitlines() for text in (before, after)]
    at = next((i for i, (a, b) in enumerate(zip(*lines, strict=False)) if a != b), 0)
    return {
        "file": change.file,
        "line": at + 1,
        "operator": change.operator,
        "occurrence": change.occurrence,
        "change": [lines[0][at].strip(), lines[1][at].strip()],
        "found_by": failed or (f"exit code {code}" if code else ""),
        "seconds": round(seconds, 1),
    }


def measure(changes: list[Change], known: dict[str, Any], passing: bool) -> Iterator[dict[str, Any]]:
    """Yield every change's outcome as soon as it is known, with the recorded reasons for survivors.

    `passing`: the tests are known to pass without any change.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name in SHARED:
        importlib.import_module(name)
    reasons = {(r["file"], *r["change"]): r["why"] for r in known.get("mutants", []) if r.get("why")}
    suites = dict.fromkeys(NEAREST[change.file] for change in changes)
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("INNERLOOP_CACHE", str(Path(folder, "cache")))
        with ProcessPoolExecutor(WORKERS, fork, begin_worker, (folder,)) as pool:
            limits = dict.fromkeys(suites, 600.0)
            for tests, seconds in () if passing else pool.map(unchanged, suites):
                limits[tests] = 60 + 6 * seconds
                print(f"{seconds:6.1f} s  {tests}", flush=True)
            trying = lambda change: (change, NEAREST[change.file], limits[NEAREST[change.file]])
            for future in as_completed([pool.submit(outcome, *trying(change)) for change in changes]):
                row = future.result()
                if not row["found_by"] and (why := reasons.get((row["file"], *row["change"]))):
                    row["why"] = why
                told = row["found_by"] or "SURVIVED"
                print(f"{row['file']}:{row['line']}: {' -> '.join(row['change'])}: {told}", flush=True)
                yield row


def load() -> dict[str, Any]:
    """The results so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(rows: list[dict[str, Any]]) -> None:
    """Save new outcomes, replacing those of the same changes and of changes that a file no longer has."""
    known, files = load(), {row["file"] for row in rows}
    same = lambda row: (row["file"], row["operator"], row["occurrence"])
    new = {same(row): row for row in rows}
    old = [row for row in known.get("mutants", []) if same(row) not in new and row["file"] in NEAREST]
    old = [
        row
        for row in old
        if row["file"] not in files or Change(*same(row)) in changes_of(row["file"], PER_FILE)
    ]
    mutants = sorted(
        [*old, *rows], key=lambda row: (row["file"], row["line"], row["operator"], row["occurrence"])
    )
    facts = {
        "command": "make mutants",
        "date": datetime.date.today().isoformat(),
        "seconds": round(sum(row["seconds"] for row in mutants)),
        "mutants": mutants,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=["*"], help="patterns for files in the package")
    parser.add_argument("--survivors", action="store_true", help="only changes that no test found last time")
    parser.add_argument("--new", action="store_true", help="only changes that have not been tried")
    parser.add_argument("--per-file", type=int, default=PER_FILE, help="changes tried per file")
    parser.add_argument(
        "--passing", action="store_true", help="skip the check that the tests pass without any change"
    )
    chosen, known = parser.parse_args(), load()
    from cosmic_ray import plugins

    plugins.OPERATOR_PROVIDERS["calls"] = CallOperators()
    files = [file for file in NEAREST if any(fnmatch(file, pattern) for pattern in chosen.files)]
    if chosen.survivors:
        left = [row for row in known.get("mutants", []) if not row["found_by"] and row["file"] in files]
        tried_then = (Change(row["file"], row["operator"], row["occurrence"]) for row in left)
        # The sample differs if the source has changed since.
        changes = [change for change in tried_then if change in changes_of(change.file, chosen.per_file)]
    else:
        samples = [changes_of(file, chosen.per_file) for file in files]
        # Try the first change of every file, then the second, and so on: an interrupted run covers all files.
        changes = [sample[i] for i in range(chosen.per_file) for sample in samples if i < len(sample)]
    if chosen.new:
        tried_before = {
            Change(row["file"], row["operator"], row["occurrence"]) for row in known.get("mutants", [])
        }
        changes = [change for change in changes if change not in tried_before]
    rows = []
    for row in measure(changes, known, chosen.passing or chosen.survivors):
        rows.append(row)
        keep(rows)
    found = sum(bool(row["found_by"]) for row in rows)
    print(f"{found} of {len(rows)} changes found, {100 * found / max(len(rows), 1):.1f} %")


if __name__ == "__main__":
    main()
