"""A run on the user's own table: as `innerloop.training.experiments.supervised`, with groups of rows as tasks."""

from dataclasses import dataclass
from pathlib import Path

from innerloop.config.data_settings import check_places
from innerloop.config.schema import Config
from innerloop.engine.types import TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import read_text
from innerloop.tasks import fingerprint
from innerloop.tasks.tables.group_tasks import GroupTasks
from innerloop.tasks.tables.preparation import Preparation
from innerloop.tasks.tables.table import Table
from innerloop.training.experiments.experiment import Experiment
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.storage.run_directory import RunFile, RunFolder


@dataclass(frozen=True, kw_only=True)
class TableExperiment(SupervisedExperiment):
    """The parts of one run on a table."""

    table: Table

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of the prepared rows of each set of groups."""
        return fingerprint.table_hashes(self.table)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """One axis, with an entry for each feature of a row."""
        return (self.table.preparation.features,)

    def train_tasks(self) -> TaskDistribution:
        """The training groups."""
        data = self.config.data
        return self.table.draws(data.training_shots, data.queries).train

    def held_out_tasks(self, split: str = "test", queries: int | None = None) -> TaskDistribution:
        """The groups of a set."""
        queries = self.config.evaluation.queries if queries is None else queries
        groups: GroupTasks = getattr(self.table, split)
        return groups.draws(self.config.data.shots, queries)


def table_of(experiment: Experiment) -> Table:
    """The table of a run. Raises InnerloopError for a run on other data."""
    if not isinstance(experiment, TableExperiment):
        raise InnerloopError(
            experiment.config.name, "was not trained on a table", got=experiment.config.data.dataset
        )
    return experiment.table


def load_table(config: Config, run: str | Path | None = None) -> Table:
    """Read the configured table, and prepare its rows as those of the run in the folder `run`, if there is one.

    Raises:
        InnerloopError: if a setting is missing or not supported with tables.
    """
    check_places(config.data)
    if config.model.normalizes and config.model.kind == "mlp":
        wrong = "batch normalisation would include the padding of smaller groups"
        raise InnerloopError("model.normalize", wrong, hint="leave it out")
    return config.data.spec.load(config.data, preparation=run and preparation_of(run))


def preparation_of(run: str | Path) -> Preparation | None:
    """How a run prepared its rows; None unless this is the folder of a run on a table."""
    path = RunFolder(run).path_of(RunFile.TABLE) if Path(run).is_dir() else None
    if path is None or not path.is_file():
        return None
    return Preparation.from_json(read_text(path, follow=False), str(path))
