"""The settings of a run as frozen dataclasses; they define the Python API, `--help` and `config.json`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from innerloop.config.bounds import (
    DEVICES,
    MEMBERS,
    MOST,
    POSITIVE,
    SEED,
    SHARE,
    STEPS,
    TASKS,
    Bounds,
    check_bounds,
    check_product,
)
from innerloop.config.specs import ALGORITHMS, DATASETS, AlgorithmSpec, DatasetSpec
from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    AlgorithmName = str
    Dataset = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS)]
    Dataset = Literal[tuple(DATASETS)]
Normalization = Literal["transductive", "inductive", "support"]
ExportFormat = Literal["onnx", "stablehlo"]
Precision = Literal["float32", "tf32", "bfloat16"]


def _listed(text: str) -> tuple[str, ...]:
    """The names between the commas of a text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


class Section:
    """Base class of settings; checks every number against the bounds in its annotation."""

    SECTION = ""
    """The prefix of the names of its fields; without a type, so that it is not a field itself."""

    def __post_init__(self) -> None:
        check_bounds(self, lambda name: f"{self.SECTION}{name}")


@dataclass(frozen=True)
class DataConfig(Section):
    """Which tasks."""

    SECTION = "data."

    dataset: Dataset = "glyphs"
    """Where tasks come from."""
    ways: Annotated[int, MEMBERS] = 5
    """Classes of an episode."""
    shots: Annotated[int, MEMBERS] = 1
    """Support examples of each class at test (for sinusoids and tables: of the task)."""
    train_shots: Annotated[int | None, MEMBERS] = None
    """Support examples of each class while training; None: as at test (Reptile trains with more)."""
    queries: Annotated[int, MEMBERS] = 1
    """Query examples of each class while training (for sinusoids: of the task; for tables: at most so many)."""
    rotations: bool = False
    """Make four classes of each, with images rotated by 0, 90, 180 and 270 degrees (Omniglot); see also
    `evaluation.rotations`."""
    flip: bool = False
    """Mirror images at random while training."""
    crop: Annotated[int, Bounds(0, 4096)] = 0
    """Shift images at random by up to so many pixels while training."""
    rotate: Annotated[float, Bounds(0, 180)] = 0.0
    """Rotate images at random by up to so many degrees while training."""
    split: str = ""
    """Which published split of the classes; empty: the data set's usual one."""
    folder: str = ""
    """Where the images are (data sets `folder` and `mini_imagenet`)."""
    size: Annotated[int, Bounds(0, 4096)] = 0
    """Side that the images of `folder` are resized to; 0: as they are."""
    background: str = "white"
    """Colour that transparent parts of the images of `folder` are composited on: a CSS name, or #rrggbb."""
    min_examples: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Classes of `folder` with fewer images are left out; 0: none."""
    file: str = ""
    """The table (data set `table`): a CSV or Parquet file with one row per example."""
    task: str = ""
    """Column of `file` that names the group of a row; every group is a task."""
    x: str = ""
    """Columns of `file` that are given, with commas between them; empty: all but `task` and `y`."""
    y: str = ""
    """Column of `file` to predict, or several with commas between them."""
    categories: str = ""
    """Columns of `file` that hold numbers and mean categories, with commas between them."""
    missing: Literal["drop", "refuse"] = "drop"
    """Whether rows of `file` with a missing value are left out, or refused."""
    protocol: Literal["maml", "reptile"] = "maml"
    """Which paper's sinusoids."""
    oracle: bool = False
    """Give the task as input: the amplitude and phase of the sinusoid, the goal of navigation, the direction or speed
    of a body."""

    @property
    def own(self) -> str:
        """The name of the user's folder of images, or of the user's table; empty for other data."""
        if self.spec.needs_file:
            return Path(self.file).name
        return Path(self.folder).name if self.spec.needs_folder else ""

    @property
    def augmented(self) -> bool:
        """Whether images are changed at random while training."""
        return bool(self.flip or self.crop or self.rotate)

    @property
    def x_columns(self) -> tuple[str, ...]:
        """The columns of a table that are given; none: all others."""
        return _listed(self.x)

    @property
    def y_columns(self) -> tuple[str, ...]:
        """The columns of a table to predict."""
        return _listed(self.y)

    @property
    def category_columns(self) -> tuple[str, ...]:
        """The columns of a table whose numbers mean categories."""
        return _listed(self.categories)

    @property
    def outputs(self) -> int:
        """The outputs of a model for such tasks."""
        return self.ways if self.spec.kind == "images" else max(1, len(self.y_columns))

    @property
    def spec(self) -> DatasetSpec:
        """The row of the data set."""
        return DATASETS[self.dataset]


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which network."""

    SECTION = "model."

    kind: Literal["conv4", "mlp"] = "conv4"
    """Four convolutional blocks, or fully connected layers."""
    filters: Annotated[int, Bounds(1, 8192)] = 64
    """Filters of each convolution."""
    downsample: Literal["stride", "pool"] = "stride"
    """How each block halves the image."""
    features: Literal["mean", "flatten"] = "mean"
    """What the head sees of the last block: its mean over positions, or all of it."""
    hidden: Annotated[tuple[int, ...], Bounds(1, 1_000_000, length=256)] = (40, 40)
    """Widths of the fully connected layers."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation of the fully connected layers."""
    normalize: bool = False
    """Batch normalisation after the fully connected layers."""
    context: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Context parameters beside the inputs of the fully connected layers, which CAVIA adapts."""
    scale: Annotated[float | None, Bounds(0, 1e30)] = None
    """Standard deviation of the initial weights of the fully connected layers; None: Glorot's."""
    start: str = ""
    """Start from the weights of this run folder, weights file or shipped model, with a head of zeros if the shapes of
    heads differ; empty: random weights."""

    @property
    def normalizes(self) -> bool:
        """Whether it has batch normalisation."""
        return self.kind == "conv4" or self.normalize


@dataclass(frozen=True)
class InnerConfig(Section):
    """The inner loop."""

    SECTION = "inner."

    steps: Annotated[int, STEPS] = 1
    """Inner steps while training."""
    learning_rate: Annotated[float, POSITIVE] = 0.01
    """Inner step size, for a loss that is a mean over examples; what is learned begins there (Meta-SGD, MAML++)."""
    optimizer: Literal["sgd", "adam", "persistent_adam"] = "sgd"
    """Gradient descent, or Adam with beta1 = 0: reset for every task, or with second moments that persist from task to
    task (Reptile's published code)."""
    minibatch: Annotated[int | None, MEMBERS] = None
    """Support examples per inner step while training; None: all."""
    derivative: Literal["unrolled", "rematerialised", "mixed"] = "unrolled"
    """How the loop is differentiated: changes time and memory, not the result."""
    checkpoints: Annotated[int | None, MEMBERS] = None
    """Checkpoints through time, for long loops: the inner steps between them are run once more. None: as many as there
    are steps, and where those do not fit into memory, their square root."""
    offload: bool = False
    """Keep the checkpoints in the host's memory, on accelerators."""
    multi_step_updates: Annotated[int, Bounds(0, MOST)] = 0
    """MAML++: outer updates whose loss also reads the queries before the last inner step."""
    proximal: Annotated[float, POSITIVE] = 1.0
    """iMAML: strength lambda of the pull to the initialisation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offload and self.checkpoints is None:
            do = "give inner.checkpoints too, such as the square root of inner.steps"
            raise InnerloopError("inner.offload", "is of checkpoints, and there are none", do=do)


@dataclass(frozen=True)
class OuterConfig(Section):
    """The outer loop."""

    SECTION = "outer."

    meta_steps: Annotated[int, Bounds(0, MOST)] = 60_000
    """Outer updates."""
    meta_batch: Annotated[int, MEMBERS] = 32
    """Tasks per outer update."""
    learning_rate: Annotated[float, POSITIVE] = 0.001
    """Outer step size (Reptile's epsilon)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Outer optimiser."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How the outer step size decays to 0 over the run."""
    clip: Annotated[float | None, POSITIVE] = None
    """Each element of the meta-gradient is clipped to +-clip; None: not at all."""
    chunk: Annotated[int | None, MEMBERS] = None
    """Tasks vectorised at a time on a device; None: one for convolutions on a CPU, else all."""
    model_shards: Annotated[int, DEVICES] = 1
    """Devices that share one copy of the parameters, for models too large for one."""
    log_every: Annotated[int, MEMBERS] = 100
    """Outer updates per dispatch and log line."""
    validate_every: Annotated[int, Bounds(0, MOST)] = 1000
    """Outer updates between validations, and one at the end; 0: none at all. Rounded to whole log lines."""
    checkpoint_every: Annotated[int, Bounds(0, MOST)] = 1000
    """Outer updates between checkpoints, and one at the end; 0: that one alone. Rounded to whole log lines."""
    snapshots: Annotated[int, Bounds(0, 10_000)] = 10
    """Initialisations kept along the run for `innerloop analyze`, evenly apart, beside that before the first update;
    0: none at all. Rounded to whole log lines."""


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """Evaluation on held-out tasks."""

    SECTION = "evaluation."

    tasks: Annotated[int, TASKS] = 10_000
    """Held-out tasks; at most so many where their number is finite (groups of a table)."""
    steps: Annotated[int, STEPS] = 10
    """Inner steps at test; may exceed those of training."""
    minibatch: Annotated[int | None, MEMBERS] = None
    """Support examples per inner step at test; None: all."""
    queries: Annotated[int, MEMBERS] = 1
    """Query examples of each class (for sinusoids: of the task; for tables: at most so many)."""
    rotations: bool = True
    """Rotate held-out classes as well where training classes are (MAML's code does, Reptile's does not)."""
    normalization: Normalization = "transductive"
    """Which batch supplies the normalisation statistics: all queries of a task together (transductive), each query
    with the support set (inductive), or the support set alone (support)."""
    validation_tasks: Annotated[int, TASKS] = 600
    """Tasks of each validation while training."""


@dataclass(frozen=True)
class RLConfig(Section):
    """Reinforcement learning: sampling, advantages, and the outer step."""

    SECTION = "rl."

    trajectories: Annotated[int, Bounds(2, 1_000_000)] = 20
    """Trajectories of every inner step and of the query while training."""
    test_trajectories: Annotated[int, Bounds(2, 1_000_000)] = 40
    """The same at test."""
    test_restarts: bool = False
    """At test, follow a trajectory that ends before the horizon by others, up to the horizon."""
    horizon: Annotated[int, Bounds(1, 1_000_000)] = 100
    """Steps after which a trajectory is cut."""
    reward: Literal["distance", "squared"] = "distance"
    """Navigation's reward: minus the distance (published code), or minus its square (the paper's text)."""
    discount: Annotated[float, SHARE] = 0.99
    """Discount factor gamma."""
    gae_lambda: Annotated[float, SHARE] = 1.0
    """Lambda of generalised advantage estimation; 1: returns minus the baseline."""
    baseline: Literal["linear", "none"] = "linear"
    """Baseline of the advantages."""
    surrogate: Literal["dice", "log_probability", "ratio"] = "dice"
    """The loss of the inner loop; only dice has the right second derivative over several steps."""
    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    """The outer step: trust region, clipped objective, or the outer optimiser along the meta-gradient."""
    max_kl: Annotated[float, POSITIVE] = 0.01
    """TRPO: the largest mean KL divergence between adapted policies before and after a step."""
    fisher_fraction: Annotated[float, SHARE] = 1.0
    """TRPO: fraction of the tasks that the curvature is estimated from."""
    conjugate_gradients: Annotated[int, Bounds(1, 10_000)] = 10
    """TRPO: iterations of conjugate gradients."""
    clip: Annotated[float, POSITIVE] = 0.2
    """PPO: clipping range of the probability ratio."""
    epochs: Annotated[int, Bounds(1, 10_000)] = 5
    """PPO: gradient steps on the same trajectories."""
    test_lr_decay: Annotated[float, Bounds(0, 1000)] = 0.5
    """Inner step size at test after the first step, relative to that of the first."""


@dataclass(frozen=True)
class Config(Section):
    """A whole run. Same config and same number of devices (with `outer.model_shards`, also of processes): same bits."""

    name: str = "custom"
    """The preset that this came from."""
    algorithm: AlgorithmName = "maml"
    """Which meta-gradient."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    seed: Annotated[int, SEED] = 0
    """Seed of the initial weights and of the training tasks."""
    precision: Precision = "float32"
    """Of the factors of products on an accelerator, in training and at test; sums and parameters are float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for sizes in self.arrays():
            check_product(sizes)

    def arrays(self) -> list[dict[str, int]]:
        """The largest arrays of a run, as the sizes of their axes by name."""
        data, outer, evaluation, rl = self.data, self.outer, self.evaluation, self.rl
        ways, steps = {"data.ways": data.ways}, {"inner.steps": self.inner.steps}
        batch, log = {"outer.meta_batch": outer.meta_batch}, min(outer.log_every, outer.meta_steps)
        layers = zip(self.model.hidden, self.model.hidden[1:], strict=False)
        found = [
            {"outer.log_every": log} | steps,
            *({"a layer of model.hidden": a, "the next": b} for a, b in layers),
        ]
        if self.reinforcement:
            acted = {"rl.trajectories": rl.trajectories, "rl.horizon": rl.horizon}
            tested = {"rl.test_trajectories": rl.test_trajectories, "rl.horizon": rl.horizon}
            return [*found, batch | acted | steps, tested]
        shots = max(data.shots, data.train_shots or 0) + data.queries
        test = {"data.shots + evaluation.queries": data.shots + evaluation.queries}
        return [*found, batch | ways | {"data.shots + data.queries": shots}, ways | test]

    @property
    def title(self) -> str:
        """The preset's name, and that of the user's own data."""
        return f"{self.name} on {self.data.own}" if self.data.own else self.name

    @property
    def spec(self) -> AlgorithmSpec:
        """The row of the algorithm."""
        return ALGORITHMS[self.algorithm]

    @property
    def reinforcement(self) -> bool:
        """Whether tasks are reinforcement learning problems."""
        return self.data.spec.kind == "reinforcement"
