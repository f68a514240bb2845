"""`innerloop train`: meta-train a preset, or resume a run."""

from collections.abc import Sequence
from pathlib import Path

from innerloop.cli.common import console, parse, start_jax
from innerloop.cli.train_arguments import Basics, Train, parse_with_preset, with_settings
from innerloop.cli.train_plan import plan
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.io.text import counted, shell_command
from innerloop.training.interruption.signals import Stopped
from innerloop.training.storage.run_directory import RunFolder


def run(argv: Sequence[str]) -> int:
    """Run `innerloop train` and return the exit code, 128 plus the signal number if a signal stopped it."""
    if {"-h", "--help"} & set(argv):
        parse(Basics, argv, name="train")
    arguments = parse_with_preset(argv)
    if arguments.at_once > 1 and arguments.seeds is None:
        raise InnerloopError("--at-once", "needs several seeds", got=arguments.at_once, hint="give --seeds")
    group = (arguments.coordinator, arguments.processes, arguments.process)
    if arguments.distributed or any(value is not None for value in group):
        if arguments.seeds is not None:
            raise InnerloopError("--seeds", "needs a single process", got=arguments.seeds, hint="give --seed")
        return _run_distributed(argv, arguments)
    if arguments.seeds is not None:
        return _run_seeds(arguments, argv, arguments.seeds)
    folder, config = plan(arguments, argv)
    start_jax(arguments.devices)
    return train_into(folder, config, resume=arguments.resume is not None)


def _run_seeds(arguments: Train, argv: Sequence[str], seeds: str) -> int:
    """Train once per seed."""
    from innerloop.cli.seeds import seeds_of, unfinished

    several = seeds_of(seeds)
    seed_given = any(word == "--seed" or word.startswith("--seed=") for word in argv)
    if arguments.resume is not None or seed_given:
        hint = "leave out --resume and --seed"
        raise InnerloopError("--seeds", "already determines the runs", got=seeds, hint=hint)
    folder, config = plan(arguments, argv)
    jobs = unfinished(several, config, folder)
    if arguments.at_once > 1:
        from innerloop.cli.at_once import ParallelRunner

        code = ParallelRunner(jobs, arguments.at_once, arguments.devices, console()).run()
    else:
        start_jax(arguments.devices)
        codes = (train_into(job.folder, job.config, resume=job.resume, several=True) for job in jobs)
        code = next(filter(None, codes), 0)
    if code == 0:
        folders = (folder / f"seed-{seed}" for seed in several)
        console().print(f"Compare: {shell_command('compare', *folders)}", style="bold")
    return code


def _run_distributed(argv: Sequence[str], arguments: Train) -> int:
    """Train as one of several processes, in a supervised child process."""
    from innerloop.cli import distributed as processes

    folder = arguments.resume or arguments.folder or Path("runs") / str(arguments.preset)
    if not processes.is_child():
        return processes.supervise(argv, folder)
    processes.end_with_parent()
    start_jax(arguments.devices, alone=False)
    from innerloop.parallel import multi_process

    a = arguments
    multi_process.initialize(multi_process.ProcessGroup(a.coordinator, a.processes, a.process, a.patience))

    def work() -> int:
        multi_process.check_same(_settings_digest(arguments), "settings on its command line")
        if not multi_process.is_primary():
            return _train_as_worker(folder)
        # Only the primary reads the run's folder, writes and prints.
        return train_into(*plan(arguments, argv), resume=arguments.resume is not None)

    return processes.as_one(work, folder)


def _settings_digest(arguments: Train) -> bytes:
    """A digest of the settings that all processes must share; their folders may differ."""
    from innerloop.config.serialization import to_json

    settings = to_json(with_settings(Config(), arguments))
    shared = f"{arguments.preset} {arguments.resume is not None} {settings}"
    return sha256([shared.encode()])


def _train_as_worker(folder: Path) -> int:
    """Train as any other process: settings and state come from the primary."""
    from innerloop.training.train import train

    try:
        train(None, folder, progress=False)
    except Stopped as stopped:
        return 128 + stopped.signal_number
    return 0


def train_into(folder: Path, config: Config, *, resume: bool = False, several: bool = False) -> int:
    """Train with a progress display; print where the results are, or how to resume.

    Args:
        folder: the run's folder.
        config: the settings.
        resume: whether to resume the run in the folder, which has these settings but perhaps another length.
        several: whether the same command trains other runs too.

    Returns:
        The exit code.
    """
    from innerloop.cli.progress import train_until_stopped
    from innerloop.training.experiments.build import check_chunk
    from innerloop.training.storage import checkpoint_manager, weights
    from innerloop.training.train import train

    out, run_folder = console(), RunFolder(folder)
    finished = resume and config == run_folder.config() and run_folder.weights.is_file()
    finished = finished and not weights.ended_early(run_folder.weights, config)
    if not finished:
        check_chunk(config)
        _announce(config, folder)
    if not resume and (about_start := _start_in_words(config)):
        out.print(about_start)
    checkpoint_manager.silence_teardown_errors()

    def tell(stopped: Stopped) -> None:
        how = "Run the same command again to continue." if several else "Resume with:"
        out.print(f"Stopped at meta-step {stopped.step}; everything is saved. {how}")
        if not several:
            out.print(f"  {shell_command('train', '--resume', folder)}", style="bold")

    work = lambda display: train(config, folder, callbacks=[display], progress=False, resume=resume)
    code = train_until_stopped(out, config.title, tell, work)
    if code == 0:
        _print_summary(folder, finished)
    return code


def _announce(config: Config, folder: Path) -> None:
    """Print what is starting and how to stop it."""
    outer = config.outer
    out = console()
    out.print(
        f"{config.title}: {config.algorithm}, {counted(outer.meta_steps, 'meta-step')} of "
        f"{counted(outer.meta_batch, 'task')}, into {folder}"
    )
    out.print("Ctrl-C saves and stops.")


def _start_in_words(config: Config) -> str:
    """What training starts from, if the config or its preset names a trained model."""
    if config.model.start:
        return f"Starts from the trained weights of {config.model.start}, not from random ones."
    own = all_presets().get(config.name)
    if own is None or not own.model.start:
        return ""
    return (
        f"Starts from random weights: {own.model.start}, from which the preset trains for "
        f"{counted(own.outer.meta_steps, 'meta-step')}, was trained on {own.data.spec.title}. Random weights may need "
        f"more (--outer.meta-steps); --model.start {own.model.start} uses the trained weights."
    )


def _print_summary(folder: Path, finished: bool) -> None:
    """Print where the results are, the last validation score, and what to do next."""
    from innerloop.training.progress.progress_words import in_words

    run_folder, out = RunFolder(folder), console()
    metrics = run_folder.metrics()
    last = {k: v for record in metrics for k, v in record.items() if k.startswith("validation_")}
    how = "Was already finished" if finished else "Trained"
    out.print(f"{how}: {in_words(last)}." if last else f"{how}.")
    out.print(f"Weights:  {folder / run_folder.weights.name}")
    out.print(f"Metrics:  {folder / 'metrics.jsonl'}, {folder / 'tensorboard'}/")
    out.print(f"Next:     {shell_command('evaluate', folder)}", style="bold")
    out.print(f"          {shell_command('report', folder)}")
