"""The settings that determine the bits of a run on own parts, as JSON: they must not change when it resumes.

The length of the run, the checkpoint interval and the patience are not among them and may change.
"""

from jax.sharding import Mesh

from innerloop.engine.pytree import kinds
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject, read_object
from innerloop.training.custom.best_validation import BestRule
from innerloop.training.custom.custom_run import CustomRun
from innerloop.training.storage.provenance import changed, changes, environment
from innerloop.training.storage.run_directory import RunFile, RunFolder

PROGRAMS = {
    "algorithm": "the algorithm, its loss or its inner loop",
    "optimizer": "the optimizer or one of its step sizes",
    "tasks": "the tasks or their data",
    "validation": "the validation tasks or their data",
    "score": "the score",
    "environment": "the environment",
    "training": "the policy, the sampler, its algorithm or the outer step",
    "validation_environment": "the environment of validation",
    "validation_sampler": "the sampler of validation",
}
"""What the digest of each program covers, for messages."""

TRACING = ("python", "packages", "flags", "device_kinds")
"""Parts of the environment that may change the trace of the same code."""

VARYING: JsonObject = {"programs": {}, "inner_step_size": None}
"""What the same code may trace to, or be read to have, elsewhere; in place of what was found."""


def settings_of(
    run: CustomRun,
    rule: BestRule | None,
    chunk: int | None,
    mesh: Mesh | None,
    own: JsonObject,
    programs: dict[str, str],
) -> JsonObject:
    """The settings of a run, with its `own` and the digests of its `programs`."""
    schedule, state = run.schedule, run.first
    settings: JsonObject = {"seed": run.seed, "meta_batch": run.meta_batch, "chunk": chunk}
    settings |= {"mesh": None if mesh is None else dict(mesh.shape)} | own
    settings |= {"log_every": schedule.log_every}
    if rule is not None:
        settings |= {"validate_every": schedule.validate_every, "validation_tasks": schedule.validation_tasks}
        settings |= {"monitor": rule.monitor, "mode": rule.mode}
    arrays = {"parameters": kinds(state.params), "optimizer": kinds(state.opt_state)}
    return settings | arrays | {"programs": programs}


def check_same(run: RunFolder, now: JsonObject) -> None:
    """Raise InnerloopError, naming the first difference, unless the run in the folder started with these settings.

    Other versions, flags or devices may change the traces of programs, and other versions of Optax where an optimiser
    keeps its step size, so neither is then compared; a separate warning names what changed.
    """
    then = read_object(run.path / RunFile.FIT, follow=False)
    if any(name.partition(".")[0] in TRACING for name in changes(run.known(), environment())):
        then, now = ({**settings, **VARYING} for settings in (then, now))
    found = changed(then, now)
    if found:
        name = min(found, key=lambda name: name.startswith("programs."))
        wrong = _worded(run, name, *found[name])
        raise InnerloopError("resume", wrong, hint="use the original settings, or another folder")


def _worded(run: RunFolder, name: str, before: str, after: str) -> str:
    """One difference as an error message."""
    if name.startswith("programs."):
        return f"{PROGRAMS[name.removeprefix('programs.')]} changed since the run in {run.path} began"
    had, got = (f"no `{name}`", after) if before == "unknown" else (f"`{name}` {before}", after)
    return f"the run in {run.path} had {had}, got {'nothing' if got == 'unknown' else got}"
