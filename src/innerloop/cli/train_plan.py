"""What the arguments of `innerloop train` ask for: the folder and the config of a new or resumed run."""

from collections.abc import Sequence
from pathlib import Path

from innerloop.cli.train_arguments import Train, arguments_of, with_settings
from innerloop.config.data_settings import check_places, check_read
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.config.unread_settings import check_effective
from innerloop.errors import InnerloopError
from innerloop.io.files import check_output_folder
from innerloop.training.storage.run_directory import RunFile, RunFolder


def plan(arguments: Train, argv: Sequence[str]) -> tuple[Path, Config]:
    """The folder of a run and its config. Raises InnerloopError for conflicting arguments."""
    if arguments.resume is not None:
        return arguments.resume, _resumed(arguments.resume, arguments, argv)
    if arguments.preset is None:
        hint = "name one (`innerloop list`), or --resume FOLDER"
        raise InnerloopError("train", "needs a preset", hint=hint)
    config = with_settings(preset(arguments.preset), arguments)
    _check_inputs(config, argv)
    folder = arguments.folder or Path("runs") / config.name
    check_output_folder(folder)
    if arguments.seeds is None:
        RunFolder(folder).check_new()
    elif (folder / RunFile.CONFIG).exists():
        raise InnerloopError(str(folder), "already holds a run", hint="give another --folder")
    return folder, config


def _check_inputs(config: Config, argv: Sequence[str]) -> None:
    """Raise InnerloopError for settings that do not go together, and for data or a start that are not there.

    Of the data only a table's header is read.
    """
    from innerloop.training.experiments.build import check_settings

    check_settings(config)
    data = config.data
    check_read(data)
    options = (word.partition("=")[0] for word in argv if word.startswith("--"))
    check_effective(config, {name[2:].replace("-", "_").replace(".no_", ".") for name in options})
    check_places(data)
    if data.spec.needs_file:
        from innerloop.tasks.datasets.table import check_columns

        check_columns(data.file, data.columns)
    if config.model.start:
        from innerloop.training.warm_start import WarmStart

        _ = WarmStart(config.model.start).path  # raises an error if there is no such model


def _resumed(folder: Path, arguments: Train, argv: Sequence[str]) -> Config:
    """The config with which the run in a folder continues; only its length may change.

    Raises InnerloopError if `--resume` is given with another preset or setting than the run's, or with `--folder`.
    """
    from innerloop.training.run_length import resumed_config
    from innerloop.training.warm_start import absolute

    if not folder.is_dir():
        raise InnerloopError("--resume", "must name an existing folder", got=repr(str(folder)))
    config = RunFolder(folder).config()
    if arguments.folder is not None:
        raise InnerloopError("train", "--resume already names the folder", hint="leave out --folder")
    if arguments.preset not in (None, config.name):
        wrong = f"the run in {folder} is of preset {config.name}"
        raise InnerloopError("--resume", wrong, got=repr(arguments.preset), hint="leave out the preset")
    given = absolute(with_settings(config, arguments_of(argv, config)))
    wanted = resumed_config(RunFolder(folder), given, may_differ=())
    check_places(config.data)
    return wanted
