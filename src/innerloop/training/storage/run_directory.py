"""A run's folder: description, metrics.jsonl, environment, clock, checkpoints/, snapshots/, tensorboard/, weights.

`config.json` describes a run from a config, `fit.json` a run of `innerloop.fit` or `fit_policy`.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from innerloop.config.schema import Config
from innerloop.config.serialization import from_json, to_json
from innerloop.errors import InnerloopError
from innerloop.io.text import counted, shell_command
from innerloop.io.untrusted import JsonObject, read_object, read_text, refuse_link
from innerloop.training.storage.metrics_log import RunLog
from innerloop.training.storage.provenance import changes, environment, identity
from innerloop.training.storage.run_file import RunFile

LOAD = "`innerloop.load_params(folder, like=params)`"
"""How to load weights that have no config."""


FIT = "`innerloop.fit` or `fit_policy`"
"""The functions whose runs have no config."""


class NotWritten(InnerloopError):
    """A checkpoint could not be written; the run can be resumed from the previous one, or from the start."""


class RunFolder(RunLog):
    """Reads and writes one run."""

    @property
    def checkpoints(self) -> Path:
        """The folder of Orbax's checkpoints."""
        return self.path / RunFile.CHECKPOINTS

    @property
    def weights(self) -> Path:
        """The trained initialisation."""
        return self.path / RunFile.WEIGHTS

    @property
    def best(self) -> Path:
        """The initialisation of the best validation; only runs with a `fit.json` have it."""
        return self.path / RunFile.BEST

    @property
    def is_fit(self) -> bool:
        """Whether this is a run of `innerloop.fit` or `fit_policy`."""
        return os.path.lexists(self.path / RunFile.FIT)

    def snapshot(self, step: int) -> Path:
        """The initialisation as it was after `step` meta-steps."""
        return self.path / RunFile.SNAPSHOTS / f"{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """All saved initialisations by meta-step, in ascending order."""
        found = snapshots_in(self.path / RunFile.SNAPSHOTS)
        for path in (self.path / RunFile.SNAPSHOTS, *found.values()):
            refuse_link(path)
        return found

    def create(self, config: Config, data: dict[str, str] | None = None) -> None:
        """Create the folder of a new run on this data. Raises InnerloopError as `check_new`."""
        self.begin(RunFile.CONFIG, to_json(config), data)

    def begin(self, name: str, description: str, data: dict[str, str] | None = None) -> None:
        """Create the folder of a new run, described by the file `name`. Raises InnerloopError as `check_new`."""
        self.check_new()
        self.make()
        made_with = environment() | {"data": data or {}}
        self.write(RunFile.ENVIRONMENT, json.dumps(made_with, indent=2) + "\n")
        self.write(name, description)

    def check_new(self) -> None:
        """Raise InnerloopError if the folder already holds a run, or anything with the name of a run's file."""
        if self.path_of(RunFile.CONFIG).exists():
            again = shell_command("train", "--resume", self.path)
            hint = f"give another folder, or continue it with `{again}`"
            hint += ", where `outer.meta_steps` may make it longer"
            raise InnerloopError(str(self.path), "already holds a run", hint=hint)
        if self.is_fit:
            hint = "give another folder, or continue it with `resume=True`"
            raise InnerloopError(str(self.path), f"already holds a run of {FIT}", hint=hint)
        taken = [name for name in RunFile if os.path.lexists(self.path / name)]
        if taken and not self._is_barely_begun(taken):
            wrong = f"holds `{taken[0]}`, which this run did not write"
            raise InnerloopError(str(self.path), wrong, hint="give a new folder, or move it away")

    def _is_barely_begun(self, files: Sequence[str]) -> bool:
        """Whether these are only the files that `begin` writes before the description: a run that was killed then."""
        if files != [RunFile.ENVIRONMENT]:
            return False
        with suppress(InnerloopError):
            return {"packages", "commit", "flags", "data"} <= self.known().keys()
        return False

    def check_length(self, meta_steps: int, who: str) -> None:
        """Raise InnerloopError, on behalf of `who`, if the run has already gone further than this length."""
        steps = (int(path.name) for path in self.checkpoints.glob("[0-9]*") if path.name.isdigit())
        if meta_steps < (taken := max(steps, default=0)):
            wrong = f"the run in {self.path} has already taken {counted(taken, 'meta-step')}"
            raise InnerloopError(who, wrong, got=meta_steps, hint="give as many or more")

    def change_length(self, meta_steps: int) -> None:
        """Give the run another length, and keep the earlier one on record; the other settings stay as written."""
        earlier, length = self.earlier_lengths(), self.config().outer.meta_steps
        if earlier[-1:] != [length]:  # it is there already if this was interrupted before
            earlier.append(length)
        settings = read_object(self.path / RunFile.CONFIG, follow=False)
        settings["outer"] = settings.get("outer", {}) | {"meta_steps": meta_steps}
        text = lambda record: json.dumps(record, indent=2) + "\n"
        self.write(RunFile.ENVIRONMENT, text(self.known() | {"earlier_lengths": earlier}))
        self.remove(self.weights.name)  # the run has not ended
        self.write(RunFile.CONFIG, text(settings))

    def earlier_lengths(self) -> list[int]:
        """The numbers of meta-steps that the run was to have before it was made longer or shorter, oldest first."""
        found = self.known().get("earlier_lengths")
        return [n for n in found if type(n) is int] if isinstance(found, list) else []

    def check_not_ended(self) -> None:
        """Raise InnerloopError if the run has ended, so that one without checkpoints is not trained again."""
        if os.path.lexists(self.weights):
            again = f"move `{self.weights.name}` away to train again from the beginning"
            hint = f"put them back, start a new run from its weights, or {again}"
            raise InnerloopError(str(self.path), "has ended, and its checkpoints are gone", hint=hint)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return any(self.checkpoints.glob("[0-9]*"))

    @contextmanager
    def undone_unless_resumable(self, new: bool) -> Iterator[Callable[[], None]]:
        """Create the folder, and undo what a new run wrote if it fails or is interrupted before its first checkpoint.

        The same command can then be tried again. A run whose checkpoint could not be written is kept: it can be resumed
        once there is room on the disk. Yields the function that undoes it, for another thread that ends the process.
        """

        def undo() -> None:
            if new and not self.has_checkpoint():
                self.undo()

        if new:
            self.check_new()
        try:
            self.make()
            yield undo
        except BaseException as error:
            if not isinstance(error, NotWritten):
                undo()
            raise

    def config(self) -> Config:
        """The run's config. Raises InnerloopError if this is not a run with a config."""
        path = self.path / RunFile.CONFIG
        if self.is_fit:
            wrong, hint = f"is a run of {FIT}, on a model of your own", "use it from Python"
            raise InnerloopError(str(self.path), wrong, hint=f"{hint}: {LOAD}")
        if not self.path.is_dir():
            raise InnerloopError(str(self.path), "there is no such folder", hint="give a run's folder")
        if not path.is_file():
            inside = min((file.parent for file in self.path.glob("*/config.json")), default=None)
            hint = f"give the runs in it, such as {inside}" if inside else "give a run's folder"
            raise InnerloopError(str(self.path), "is not a run (it has no config.json)", hint=hint)
        return from_json(read_text(path, follow=False), str(path))

    def known(self) -> JsonObject:
        """The recorded `environment` of the run; empty if the file is missing."""
        path = self.path / RunFile.ENVIRONMENT
        return read_object(path, follow=False) if os.path.lexists(path) else {}

    def identity(self, data: dict[str, str]) -> bytes:
        """The identity of the run, to recognise its checkpoints: a digest of its config and the hashes of its data.

        The config is that of the beginning: the length may have changed since.
        """
        first = next(iter(self.earlier_lengths()), None)
        return identity(read_text(self.path / RunFile.CONFIG), data, first)

    def check_data(self, data: dict[str, str]) -> None:
        """Raise InnerloopError if a set of the data has changed since the run began."""
        if other := self._changed_sets(data):
            wrong = f"the {other} of the data changed since the run in {self.path} began"
            raise InnerloopError("resume", wrong, hint="restore the data, or start a new run")

    def warn_of_other_data(self, data: dict[str, str]) -> None:
        """Warn if a set of the data is not that of the training."""
        if other := self._changed_sets(data):
            text = f"innerloop: {self.path}: the data differ from those of training (the {other})"
            warnings.warn(text, stacklevel=3)

    def _changed_sets(self, data: dict[str, str]) -> str:
        """The sets of the data whose hashes are not those on record, in words; empty if there are none."""
        then = self.known().get("data")
        known = then if isinstance(then, dict) else {}
        other = [name for name, found in data.items() if known.get(name, found) != found]
        *first, last = ["training" if name == "train" else name for name in other] or [""]
        return f"{', '.join(first)} and {last} sets" if first else f"{last} set" if last else ""

    def note_circumstances(self, step: int) -> None:
        """Warn if versions or devices differ from those that the run was started with, and record the change."""
        known, now = self.known(), environment()
        found = changes(known, now)
        if not found:
            return
        differences = "; ".join(f"{name}: then {a}, now {b}" for name, (a, b) in found.items())
        text = f"innerloop: {self.path} is resumed in another environment, so its bits may differ ({differences})"
        warnings.warn(text, stacklevel=2)
        earlier = known.get("resumed")
        here = {"meta_step": step, "changed": {name: list(pair) for name, pair in found.items()}}
        known["resumed"] = [*(earlier if isinstance(earlier, list) else []), here]
        self.write(RunFile.ENVIRONMENT, json.dumps(known, indent=2) + "\n")


def snapshots_in(folder: Path) -> dict[int, Path]:
    """The saved initialisations in a folder by meta-step, in ascending order."""
    found = {path for path in folder.glob("*.safetensors") if re.fullmatch(r"[0-9]{8,18}", path.stem)}
    return {int(path.stem): path for path in sorted(found)}


def last_checkpoint_hint(folder: Path) -> str:
    """The end of an error message: where the last good checkpoint of a run is, if there is one."""
    there = RunFolder(folder).has_checkpoint()
    return f"; the last good checkpoint is kept in {folder}" if there else ""
