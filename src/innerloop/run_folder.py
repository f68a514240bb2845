"""A run's folder: config, metrics.jsonl, environment, clock, checkpoints/, snapshots/, tensorboard/, weights."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

from innerloop.config import Config
from innerloop.config_json import from_json, to_json
from innerloop.errors import InnerloopError
from innerloop.outside import is_number, parse_json, read_object, read_text
from innerloop.provenance import changes, identity
from innerloop.provenance import environment as environment


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InnerloopError(
            str(path), f"cannot be written ({error.strerror})", do="free some room"
        ) from None


def checked_record(line: str, who: str) -> dict[str, Any]:
    """One line of metrics. Raises InnerloopError if it is none."""
    record = parse_json(line, who)
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise InnerloopError(who, "must be an object with a step", got=line[:80])
    if not all(is_number(value) for name, value in record.items() if name != "broken"):
        raise InnerloopError(who, "must hold numbers alone", got=line[:80])
    return record


class RunFolder:
    """Reads and writes one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """Where Orbax keeps the states."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The trained initialisation."""
        return self.path / "weights.safetensors"

    def snapshot(self, step: int) -> Path:
        """The initialisation as it was after `step` meta-steps."""
        return self.path / "snapshots" / f"{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """All kept initialisations by meta-step, the first ones first."""
        found = sorted((self.path / "snapshots").glob("*.safetensors"))
        return {int(path.stem): path for path in found if path.stem.isdecimal()}

    def create(self, config: Config, data: dict[str, str] | None = None) -> None:
        """Make the folder of a new run on these data. Raises InnerloopError if there is a run already."""
        if (self.path / "config.json").exists():
            do = f"give another folder, or go on with it by `innerloop train --resume {self.path}`"
            raise InnerloopError(str(self.path), "holds a run already", do=do)
        self.make()
        made_with = environment() | {"data": data or {}}
        write_atomically(self.path / "environment.json", json.dumps(made_with, indent=2) + "\n")
        write_atomically(self.path / "config.json", to_json(config))

    def make(self) -> None:
        """Make the folder itself, unless it is there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InnerloopError(str(self.path), f"cannot be made ({error.strerror})") from None

    def config(self) -> Config:
        """The run's config. Raises InnerloopError if this is no run."""
        path = self.path / "config.json"
        if not path.is_file():
            raise InnerloopError(
                str(self.path), "is not a run (it has no config.json)", do="give a run's folder"
            )
        return from_json(read_text(path), str(path))

    def known(self) -> dict[str, Any]:
        """What the run was made with, as `environment` gave it then; empty if that is lost."""
        path = self.path / "environment.json"
        return read_object(path) if path.is_file() else {}

    def identity(self, data: dict[str, str]) -> bytes:
        """What tells this run's checkpoints from those of another: its config, and the hashes of its data."""
        return identity(read_text(self.path / "config.json"), data)

    def check_data(self, data: dict[str, str]) -> None:
        """Raise InnerloopError if a set of the data is not what it was when the run began."""
        then = self.known().get("data")
        known = then if isinstance(then, dict) else {}
        other = [name for name, found in data.items() if known.get(name, found) != found]
        if other:
            wrong = (
                f"the {' and the '.join(other)} set of the data changed since the run in {self.path} began"
            )
            raise InnerloopError("--resume", wrong, do="bring the data back, or start a new run")

    def note_circumstances(self, step: int) -> None:
        """Warn of versions and devices that are not those that the run was made with, and keep them with the rest."""
        known, now = self.known(), environment()
        found = changes(known, now)
        if not found:
            return
        told = "; ".join(f"{name}: then {a}, now {b}" for name, (a, b) in found.items())
        text = f"innerloop: {self.path} goes on in other circumstances, so its bits may differ ({told})"
        warnings.warn(text, stacklevel=2)
        earlier = known.get("resumed")
        here = {"meta_step": step, "changed": {name: list(pair) for name, pair in found.items()}}
        known["resumed"] = [*(earlier if isinstance(earlier, list) else []), here]
        write_atomically(self.path / "environment.json", json.dumps(known, indent=2) + "\n")

    def seconds(self) -> float:
        """Training time so far, over all its sittings."""
        path = self.path / "clock.json"
        seconds: Any = read_object(path).get("seconds") if path.exists() else 0.0
        if not is_number(seconds) or not 0 <= seconds < 1e12:
            raise InnerloopError(str(path), "must hold seconds", got=repr(seconds)[:80], do="remove the file")
        return float(seconds)

    def write_seconds(self, seconds: float) -> None:
        """Keep the training time."""
        write_atomically(self.path / "clock.json", json.dumps({"seconds": round(seconds, 1)}) + "\n")

    def log(self, record: dict[str, Any]) -> None:
        """Add one line of metrics."""
        path = self.path / "metrics.jsonl"
        try:
            with open(path, "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            wrong = f"cannot be written ({error.strerror})"
            raise InnerloopError(str(path), wrong, do="free some room, then --resume") from None

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics; a last line cut short by a crash is left out.

        Raises InnerloopError for any other line that is not an object of numbers with a step.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines = list(enumerate(read_text(path).split("\n"), 1))[:-1]
        return [checked_record(line, f"{path}, line {number}") for number, line in lines if line]

    def rewind(self, step: int) -> None:
        """Forget metrics after `step`: they will be made again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in kept))
