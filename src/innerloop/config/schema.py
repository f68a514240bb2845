"""The settings of a run as frozen dataclasses; they define the Python API, `--help` and `config.json`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from innerloop.config.bounds import (
    COUNTS,
    DEVICES,
    INT32_MAX,
    POSITIVE,
    POSITIVE_FRACTION,
    SEED,
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
    """The names in a comma-separated text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


class Section:
    """Base class of settings; checks every number against its annotated bounds."""

    SECTION = ""
    """Prefix of the names of the fields; not annotated with a type, so that it is not a field itself."""

    def __post_init__(self) -> None:
        check_bounds(self, lambda name: f"{self.SECTION}{name}")


@dataclass(frozen=True)
class DataConfig(Section):
    """The tasks."""

    SECTION = "data."

    dataset: Dataset = "glyphs"
    """The source of tasks."""
    ways: Annotated[int, COUNTS] = 5
    """Classes per episode."""
    shots: Annotated[int, COUNTS] = 1
    """Support examples per class at test (sinusoids and tables: per task)."""
    train_shots: Annotated[int | None, COUNTS] = None
    """Support examples per class in training; None: as at test (Reptile trains with more)."""
    queries: Annotated[int, COUNTS] = 1
    """Query examples per class in training (sinusoids: per task; tables: the maximum per task)."""
    rotations: bool = False
    """Turn each class into four, with images rotated by 0, 90, 180 and 270 degrees (Omniglot); see also
    `evaluation.rotations`."""
    flip: bool = False
    """Mirror images at random in training."""
    crop: Annotated[int, Bounds(0, 4096)] = 0
    """Shift images at random by up to this many pixels in training."""
    rotate: Annotated[float, Bounds(0, 180)] = 0.0
    """Rotate images at random by up to this many degrees in training."""
    split: str = ""
    """Published split of the classes; empty: the usual one of the data set."""
    folder: str = ""
    """Folder of the images (data sets `folder` and `mini_imagenet`)."""
    size: Annotated[int, Bounds(0, 4096)] = 0
    """Side length in pixels to which the images of `folder` are resized; 0: not resized."""
    background: str = "white"
    """Background colour for transparent parts of the images of `folder`: a CSS name, or #rrggbb."""
    min_examples: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Leave out classes of `folder` with fewer images; 0: keep all."""
    file: str = ""
    """Table (data set `table`): a CSV or Parquet file with one row per example."""
    task: str = ""
    """Column of `file` with the group of each row; every group is a task."""
    x: str = ""
    """Input columns of `file`, separated by commas; empty: all except `task` and `y`."""
    y: str = ""
    """Column of `file` to predict, or several separated by commas."""
    categories: str = ""
    """Numeric columns of `file` to treat as categories, separated by commas."""
    missing: Literal["drop", "refuse"] = "drop"
    """Whether to leave out rows of `file` with a missing value, or to refuse the file."""
    protocol: Literal["maml", "reptile"] = "maml"
    """The paper whose sinusoids are used."""
    oracle: bool = False
    """Add the task to the input: the amplitude and phase of the sinusoid, the goal of navigation, or the direction or
    speed of a body."""

    @property
    def own(self) -> str:
        """The name of the image folder or of the table; empty for other data."""
        if self.spec.needs_file:
            return Path(self.file).name
        return Path(self.folder).name if self.spec.needs_folder else ""

    @property
    def training_shots(self) -> int:
        """Support examples per class in training."""
        return self.train_shots or self.shots

    @property
    def augmented(self) -> bool:
        """Whether images are augmented in training."""
        return bool(self.flip or self.crop or self.rotate)

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of a table by the setting that names them."""
        listed = {name: _listed(getattr(self, name)) for name in ("x", "y", "categories")}
        return {"task": (self.task,) if self.task else ()} | listed

    @property
    def outputs(self) -> int:
        """The number of outputs of a model for these tasks."""
        return self.ways if self.spec.kind == "images" else max(1, len(self.columns["y"]))

    @property
    def spec(self) -> DatasetSpec:
        """The data set's row in the table of data sets."""
        return DATASETS[self.dataset]


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network."""

    SECTION = "model."

    kind: Literal["conv4", "mlp"] = "conv4"
    """Four convolutional blocks (conv4), or fully connected layers (mlp)."""
    filters: Annotated[int, Bounds(1, 8192)] = 64
    """Filters of each convolution."""
    downsample: Literal["stride", "pool"] = "stride"
    """How each block halves the image."""
    features: Literal["mean", "flatten"] = "mean"
    """What the head reads from the last block: its mean over positions, or all of it."""
    hidden: Annotated[tuple[int, ...], Bounds(1, 1_000_000, length=256)] = (40, 40)
    """Widths of the fully connected layers."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation of the fully connected layers."""
    normalize: bool = False
    """Batch normalisation after the fully connected layers."""
    context: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Context parameters appended to the inputs of the fully connected layers, adapted by CAVIA."""
    scale: Annotated[float | None, Bounds(0, 1e30)] = None
    """Standard deviation of the initial weights of the fully connected layers; None: Glorot initialisation."""
    start: str = ""
    """Start from the weights of this run folder, weights file or shipped model, with a zero head if the shapes of the
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
    """Inner steps in training."""
    learning_rate: Annotated[float, POSITIVE] = 0.01
    """Inner step size, for a loss that is a mean over examples; initial value of learned step sizes (Meta-SGD,
    MAML++)."""
    optimizer: Literal["sgd", "adam", "persistent_adam"] = "sgd"
    """Gradient descent, or Adam with beta1 = 0: reset for every task (adam), or with second moments that persist from
    task to task (persistent_adam, as in Reptile's published code)."""
    minibatch: Annotated[int | None, COUNTS] = None
    """Support examples per inner step in training; None: all."""
    derivative: Literal["unrolled", "rematerialised", "mixed"] = "unrolled"
    """How to differentiate the inner loop: affects time and memory, not the result."""
    checkpoints: Annotated[int | None, COUNTS] = None
    """Checkpoints through time, for long loops: the inner steps between them are recomputed. None: one for each step
    or, if those do not fit into memory, the square root of the number of steps."""
    offload: bool = False
    """On accelerators, keep the checkpoints in host memory."""
    multi_step_updates: Annotated[int, Bounds(0, INT32_MAX)] = 0
    """MAML++: number of outer updates at the start whose loss includes the query loss after every inner step."""
    proximal: Annotated[float, POSITIVE] = 1.0
    """iMAML: strength lambda of the proximal term that pulls towards the initialisation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offload and self.checkpoints is None:
            hint = "give `inner.checkpoints` too, such as the square root of `inner.steps`"
            raise InnerloopError("inner.offload", "there are no checkpoints to offload", hint=hint)


@dataclass(frozen=True)
class OuterConfig(Section):
    """The outer loop."""

    SECTION = "outer."

    meta_steps: Annotated[int, Bounds(0, INT32_MAX)] = 60_000
    """Outer updates."""
    meta_batch: Annotated[int, COUNTS] = 32
    """Tasks per outer update."""
    learning_rate: Annotated[float, POSITIVE] = 0.001
    """Outer step size (Reptile's epsilon)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Outer optimiser."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How the outer step size decays to 0 over the run, if at all."""
    clip: Annotated[float | None, POSITIVE] = None
    """Clip each element of the meta-gradient to +-clip; None: no clipping."""
    chunk: Annotated[int | None, COUNTS] = None
    """Tasks vectorised at a time on each device; None: one for convolutions on a CPU, else all."""
    model_shards: Annotated[int, DEVICES] = 1
    """Devices that share one copy of the parameters, for models too large for one device."""
    log_every: Annotated[int, COUNTS] = 100
    """Outer updates per dispatch and log line."""
    validate_every: Annotated[int, Bounds(0, INT32_MAX)] = 1000
    """Outer updates between validations, with another at the end; 0: no validation. Rounded to whole log lines."""
    checkpoint_every: Annotated[int, Bounds(0, INT32_MAX)] = 1000
    """Outer updates between checkpoints, with another at the end; 0: only at the end. Rounded to whole log lines."""
    snapshots: Annotated[int, Bounds(0, 10_000)] = 10
    """Snapshots of the initialisation for `innerloop analyze`, evenly spaced over the run, in addition to one before
    the first update; 0: none at all. Rounded to whole log lines."""


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """Evaluation on held-out tasks."""

    SECTION = "evaluation."

    tasks: Annotated[int, TASKS] = 10_000
    """Held-out tasks; all of them if there are fewer (groups of a table)."""
    steps: Annotated[int, STEPS] = 10
    """Inner steps at test; may be more than in training."""
    minibatch: Annotated[int | None, COUNTS] = None
    """Support examples per inner step at test; None: all."""
    queries: Annotated[int, COUNTS] = 1
    """Query examples per class at test (sinusoids: per task; tables: the maximum per task)."""
    rotations: bool = True
    """Rotate held-out classes too, if training classes are rotated (MAML's code does, Reptile's does not)."""
    normalization: Normalization = "transductive"
    """The batch that gives the normalisation statistics: all queries of a task together (transductive), each query
    with the support set (inductive), or only the support set (support)."""
    validation_tasks: Annotated[int, TASKS] = 600
    """Tasks in each validation during training."""


@dataclass(frozen=True)
class RLConfig(Section):
    """Reinforcement learning: sampling, advantages, and the outer step."""

    SECTION = "rl."

    trajectories: Annotated[int, Bounds(2, 1_000_000)] = 20
    """Trajectories for every inner step and for the query, in training."""
    test_trajectories: Annotated[int, Bounds(2, 1_000_000)] = 40
    """Trajectories for every inner step and for the query, at test."""
    test_restarts: bool = False
    """At test, when a trajectory ends before the horizon, start another one, up to the horizon."""
    horizon: Annotated[int, Bounds(1, 1_000_000)] = 100
    """Number of steps after which a trajectory is cut off."""
    reward: Literal["distance", "squared"] = "distance"
    """Reward of navigation: minus the distance (published code), or minus its square (the paper's text)."""
    discount: Annotated[float, POSITIVE_FRACTION] = 0.99
    """Discount factor gamma."""
    gae_lambda: Annotated[float, POSITIVE_FRACTION] = 1.0
    """Lambda of generalised advantage estimation (GAE); 1: returns minus the baseline."""
    baseline: Literal["linear", "none"] = "linear"
    """Baseline of the advantages."""
    surrogate: Literal["dice", "log_probability", "ratio"] = "dice"
    """Loss of the inner loop; only dice has the correct second derivative over several steps."""
    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    """Outer step: trust region (trpo), clipped objective (ppo), or the outer optimiser on the meta-gradient."""
    max_kl: Annotated[float, POSITIVE] = 0.01
    """TRPO: largest mean KL divergence between adapted policies before and after a step."""
    fisher_fraction: Annotated[float, POSITIVE_FRACTION] = 1.0
    """TRPO: fraction of the tasks used to estimate the curvature."""
    conjugate_gradients: Annotated[int, Bounds(1, 10_000)] = 10
    """TRPO: conjugate gradient iterations."""
    clip: Annotated[float, POSITIVE] = 0.2
    """PPO: clipping range of the probability ratio."""
    epochs: Annotated[int, Bounds(1, 10_000)] = 5
    """PPO: gradient steps on the same trajectories."""
    test_lr_decay: Annotated[float, Bounds(0, 1000)] = 0.5
    """Size of inner steps after the first at test, relative to the first."""


@dataclass(frozen=True)
class Config(Section):
    """A whole run. The same config and number of devices (and of processes, with `outer.model_shards`) give the same
    bits."""

    name: str = "custom"
    """Name of the preset that the config is based on."""
    algorithm: AlgorithmName = "maml"
    """Meta-learning algorithm."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    seed: Annotated[int, SEED] = 0
    """Seed of the initial weights and of the training tasks."""
    precision: Precision = "float32"
    """Precision of the factors of matrix products and convolutions on accelerators, in training and at test; sums and
    parameters are float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for sizes in self.arrays():
            check_product(sizes)

    def arrays(self) -> list[dict[str, int]]:
        """The largest arrays of a run, as named axis sizes."""
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
        """The preset's name, with the name of the user's own data."""
        return f"{self.name} on {self.data.own}" if self.data.own else self.name

    @property
    def spec(self) -> AlgorithmSpec:
        """The algorithm's row in the table of algorithms."""
        return ALGORITHMS[self.algorithm]

    @property
    def reinforcement(self) -> bool:
        """Whether tasks are reinforcement learning problems."""
        return self.data.spec.kind == "reinforcement"
