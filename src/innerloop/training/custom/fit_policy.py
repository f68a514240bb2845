"""`fit_policy`: `fit` for policies, in environments of your own."""

from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh

from innerloop.engine.types import Params
from innerloop.rl.outer import MetaIterations
from innerloop.rl.sampler import MetaSampler
from innerloop.rl.updates import OuterStep
from innerloop.training.custom.best_validation import BestRule
from innerloop.training.custom.fit_arguments import (
    check_call,
    check_unvalidated,
    count,
    optional_count,
    schedule_of,
    seed_of,
)
from innerloop.training.custom.fit_settings import settings_of
from innerloop.training.custom.policy_programs import described_sampler, programs_of
from innerloop.training.custom.policy_run import PolicyRun
from innerloop.training.custom.run_in_folder import Fitted, run_in_folder
from innerloop.training.progress.callbacks import Callback

WHO = "fit_policy"


def fit_policy(
    sampler: MetaSampler,
    policy: Params,
    *,
    outer_step: OuterStep,
    meta_batch: int,
    meta_steps: int,
    folder: Path | str,
    seed: int = 0,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    validation: MetaSampler | None = None,
    validate_every: int = 100,
    validation_tasks: int = 40,
    patience: int | None = None,
    log_every: int = 10,
    checkpoint_every: int = 100,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    resume: bool = False,
) -> Fitted:
    """Meta-train a policy into a folder, with checkpoints, metrics, validation and exact resume.

    The result is bit-identical to that of `MetaIterations(...).run` from `init(policy, jax.random.key(seed))`, however
    often the run is interrupted and resumed. A line of metrics holds the mean returns after each inner step, and any
    broken trajectories.

    Args:
        sampler: as for `MetaIterations`.
        policy: the policy before training.
        outer_step: as for `MetaIterations`.
        meta_batch: as for `MetaIterations`.
        meta_steps: the number of meta-iterations; a resumed run may be made longer.
        folder: the run's folder.
        seed: determines tasks and actions.
        chunk: as for `MetaIterations`.
        mesh: as for `MetaIterations`.
        validation: collects the trajectories of validation: `sampler`, or one that takes more inner steps, for example.
            Its held-out tasks are the same in every run. The best weights are those of the highest mean return after
            its last inner step.
        validate_every: the number of meta-steps between validations; each runs at the end of a block of `log_every`.
        validation_tasks: the number of held-out tasks, at least 2.
        patience: the number of validations without improvement after which the run ends (None: never).
        log_every: the number of meta-steps in a block; one line of metrics holds the means over a block.
        checkpoint_every: the number of meta-steps between checkpoints; each is written at the end of a block.
        callbacks: called after every block, to log, plot or end the run.
        progress: whether to show progress on standard error if the run takes more than two seconds.
        resume: whether to continue from the last checkpoint in the folder. If there is none, the run starts from the
            beginning, so a script can be restarted unchanged.

    Raises:
        InnerloopError: an argument is wrong, the policy does not fit the environment, the folder holds another run,
            memory ran out, or files cannot be written.
        Diverged: an InnerloopError, if more than a tenth of the trajectories of a meta-step broke, all of one task, or
            if a loss, the meta-gradient or a parameter is not finite.
        Stopped: SIGINT, SIGTERM or SIGHUP was received, and the state was saved.
    """
    check_call(WHO, policy, callbacks, progress=progress, resume=resume)
    schedule = schedule_of(
        WHO,
        meta_steps=meta_steps,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        validate_every=validate_every,
        validation_tasks=validation_tasks,
        validated=validation is not None,
    )
    seed, meta_batch = seed_of(WHO, seed), count(WHO, "meta_batch", meta_batch)
    patience, chunk = optional_count(WHO, "patience", patience), optional_count(WHO, "chunk", chunk)
    loop = MetaIterations(sampler, outer_step, meta_batch=meta_batch, chunk=chunk, mesh=mesh)
    run = PolicyRun(loop, policy, schedule, seed, validation)
    run.check_validation()
    rule = None if validation is None else BestRule("return", "max", patience)
    own = described_sampler(sampler)
    if validation is None:
        check_unvalidated(WHO, patience=patience)
    else:
        own["validation"] = described_sampler(validation)
    settings = settings_of(run, rule, chunk, mesh, own, programs_of(run))
    return run_in_folder(run, folder, rule, settings, callbacks, progress=progress, resume=resume)
