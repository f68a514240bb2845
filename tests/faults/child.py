"""`python -m tests.faults.child FOLDER {new,resume}`: a training of its own process, to be killed.

It is what `innerloop train` does, on a config of a few seconds.
"""

import sys
from dataclasses import replace
from pathlib import Path

from innerloop.config.presets.registry import preset
from innerloop.config.schema import EvaluationConfig, ModelConfig, OuterConfig

SHORT = replace(
    preset("sinusoid-maml"),
    model=ModelConfig(kind="mlp", hidden=(4,)),
    outer=OuterConfig(
        meta_steps=12, meta_batch=2, log_every=2, validate_every=0, checkpoint_every=4, snapshots=2
    ),
    evaluation=EvaluationConfig(steps=2, tasks=6, validation_tasks=4, queries=3),
)
EVERY = 8
LONG = replace(SHORT, outer=replace(SHORT.outer, meta_steps=600, checkpoint_every=EVERY))


def main() -> int:
    from innerloop.cli import fail
    from innerloop.cli.train import train_into
    from innerloop.errors import InnerloopError

    folder, mode = Path(sys.argv[1]), sys.argv[2]
    try:
        return train_into(folder, LONG, resume=mode == "resume")
    except InnerloopError as error:
        return fail(str(error), 2)


if __name__ == "__main__":
    sys.exit(main())
