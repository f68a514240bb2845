"""The length of a run that is resumed: the one setting of a run from a config that may change.

A run may be made longer, or shorter as long as it has not gone further yet. It then ends with the bits of a run that
had this length from the start, so the outer step size must not depend on the length.
"""

from dataclasses import asdict, replace

from innerloop.config.schema import Config
from innerloop.config.serialization import flattened
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.training.storage.run_directory import RunFolder

MAY_DIFFER = ("outer.snapshots", "model.start", "data.folder", "data.file")
"""Settings in which the same script may differ from its run, in another version or folder: the run keeps its own."""


def resumed_config(
    run: RunFolder, given: Config | None, *, may_differ: tuple[str, ...] = MAY_DIFFER
) -> Config:
    """The config with which a run continues: its own, with the length of the given one (None: unchanged).

    The settings in `may_differ` are not compared.

    Raises:
        InnerloopError: if the given config differs in another setting, the outer step size decays over the
            run, or the run has gone further already.
    """
    own = run.config()
    if given is None:
        return own
    length = given.outer.meta_steps
    wanted = replace(own, outer=replace(own.outer, meta_steps=length))
    kept = flattened(asdict(wanted))
    for name, value in flattened(asdict(given)).items():
        if value != kept[name] and name not in may_differ:
            wrong = f"the resumed run keeps its own setting, {kept[name]!r}"
            raise InnerloopError(name, wrong, got=repr(value), hint="leave it out, or start a new run")
    if wanted == own:
        return own
    if own.outer.decay != "constant":
        steps = counted(own.outer.meta_steps, "meta-step")
        wrong = f"the outer step size decays to 0 over the {steps} of the run in {run.path}"
        hint = f"keep the length, or start a new run from its weights: `model.start` {run.path}"
        raise InnerloopError("outer.meta_steps", wrong, got=length, hint=hint)
    run.check_length(length, "outer.meta_steps")
    return wanted
