"""The settings of a run as frozen dataclasses; they define the Python API, `--help` and `config.json`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from innerloop.config.bounds import (
    COUNTS,
    DEVICES,
    INT32_MAX,
    POSITIVE,
    SEED,
    STEPS,
    TASKS,
    Bounds,
    Section,
    check_product,
)
from innerloop.config.data_config import DataConfig
from innerloop.config.rl_config import RLConfig
from innerloop.config.specs import ALGORITHMS, AlgorithmSpec
from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    AlgorithmName = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS)]
Normalization = Literal["transductive", "inductive", "support"]
ExportFormat = Literal["onnx", "stablehlo"]
Precision = Literal["float32", "tf32", "bfloat16"]


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
