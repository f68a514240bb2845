"""`innerloop reproduce`: repeat a run from its config and compare."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from innerloop.cli.common import console, parse, print_json, start_jax
from innerloop.config.bounds import DEVICES
from innerloop.errors import InnerloopError
from innerloop.io.files import check_output_folder
from innerloop.training.interruption.signals import Stopped
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress


class Blocks(Callback):
    """Shows the progress of a run but not its messages, which name files of a folder that may not be kept."""

    def __init__(self, display: Callback):
        self.display = display

    def on_block(self, progress: Progress) -> None:
        """Show the progress."""
        self.display.on_block(progress)


@dataclass(frozen=True)
class Reproduce:
    """Repeat a run from its config and compare weights bit for bit and metrics to the last digit.

    The exit code is 0 if everything matches and 1 if anything differs; the output then lists the differences in
    versions, machine, devices, flags and data.

    Example: innerloop reproduce runs/sinusoid-maml
    """

    run: Annotated[Path, tyro.conf.Positional, arg(metavar="RUN", help_behavior_hint="")]
    """The run's folder."""
    folder: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: not kept)")] = None
    """Where to keep the new run."""
    devices: Annotated[
        int | None, DEVICES, arg(metavar="N", help_behavior_hint="(default: as in the run)")
    ] = None
    """CPU devices to split tasks over."""
    json: bool = False
    """Print the comparison as JSON."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop reproduce` and return the exit code: 0 if the runs are the same, else 1."""
    arguments = parse(Reproduce, argv)
    start_jax(_devices_of(arguments.run) if arguments.devices is None else arguments.devices)
    if arguments.folder is not None:
        check_output_folder(arguments.folder)
        return _print_comparison(arguments, arguments.folder)
    kept = tempfile.TemporaryDirectory(prefix="innerloop-reproduce-", ignore_cleanup_errors=True)
    with kept:
        return _print_comparison(arguments, Path(kept.name) / "run", kept.cleanup)


def _devices_of(folder: Path) -> int | None:
    """The number of devices of the run; None if unknown. Raises InnerloopError if the folder is not a run."""
    from innerloop.training.storage.run_directory import RunFolder

    run = RunFolder(folder)
    run.config()
    known = run.known()
    devices = known.get("devices")
    if known and not (isinstance(devices, list) and devices):
        path, hint = folder / "environment.json", "restore the file, or give --devices"
        raise InnerloopError(str(path), "does not name the devices", hint=hint)
    return len(known["devices"]) if known else None


def _print_comparison(arguments: Reproduce, into: Path, clean_up: Callable[[], None] = lambda: None) -> int:
    """Print the comparison and return the exit code, 128 plus the signal number if a signal arrived."""
    from innerloop.cli.progress import train_until_stopped
    from innerloop.training.reproduce import reproduce

    out, found = console(stderr=arguments.json), []

    def tell(stopped: Stopped) -> None:
        clean_up()  # the process may end here
        out.print(f"Stopped at meta-step {stopped.step}; nothing was compared.")

    repeat = lambda display: reproduce(arguments.run, into, callbacks=[Blocks(display)], progress=False)
    again = lambda display: found.append(repeat(display))
    code = train_until_stopped(out, f"reproduce {arguments.run}", tell, again)
    if code:
        return code
    result = found[0]
    if arguments.json:
        print_json(asdict(result) | {"same": result.same})
    else:
        for line in str(result).splitlines():
            out.print(line)
    return 0 if result.same else 1
