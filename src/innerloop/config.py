"""Everything that decides a run, as frozen dataclasses: one definition gives the API, `--help` and `config.json`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from innerloop.errors import InnerloopError
from innerloop.specs import ALGORITHMS, DATASETS, AlgorithmSpec, DatasetSpec

if TYPE_CHECKING:
    AlgorithmName = str
    Dataset = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS)]
    Dataset = Literal[tuple(DATASETS)]
Normalization = Literal["transductive", "inductive", "support"]


def at_least(section: str, settings: Any, **least: int) -> None:
    """Raise InnerloopError for a number below its least value; None is no number."""
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise InnerloopError(section, f"`{name}` must be {bound} or more", got=value)


def check_seed(seed: int) -> None:
    """Raise InnerloopError for a seed that is no 64-bit number."""
    if not -(2**63) <= seed < 2**63:
        raise InnerloopError("--seed", "must be a number of at most 64 bits", got=seed)


@dataclass(frozen=True)
class DataConfig:
    """Which tasks."""

    dataset: Dataset = "glyphs"
    """Where tasks come from."""
    ways: int = 5
    """Classes of an episode."""
    shots: int = 1
    """Support examples of each class at test (for sinusoids: of the task)."""
    train_shots: int | None = None
    """Support examples of each class while training; None: as at test (Reptile trains with more)."""
    queries: int = 1
    """Query examples of each class while training (for sinusoids: of the task)."""
    rotations: bool = False
    """Each training, validation and test class gives four: its images turned by quarters (Omniglot)."""
    split: str = ""
    """Which published split of the classes; empty: the data set's usual one."""
    folder: str = ""
    """Where the images are (data sets `folder` and `mini_imagenet`)."""
    size: int = 0
    """Side that the images of `folder` are resized to; 0: as they are."""
    protocol: Literal["maml", "reptile"] = "maml"
    """Whose sinusoids."""
    oracle: bool = False
    """Give the task as inputs: the sinusoid's amplitude and phase, the goal of navigation, the direction or
    speed of a body."""

    @property
    def spec(self) -> DatasetSpec:
        """What is known of the data set."""
        return DATASETS[self.dataset]


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    kind: Literal["conv4", "mlp"] = "conv4"
    """Four convolutional blocks, or fully connected layers."""
    filters: int = 64
    """Filters of each convolution."""
    downsample: Literal["stride", "pool"] = "stride"
    """How each block halves the image."""
    features: Literal["mean", "flatten"] = "mean"
    """What the head sees of the last block's places."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the fully connected layers."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation of the fully connected layers."""
    normalize: bool = False
    """Batch normalisation after the fully connected layers."""
    scale: float | None = None
    """Deviation of the fully connected layers' initial weights; None: Glorot's."""
    start: str = ""
    """Begin with the weights of this run folder, weights file or shipped model, and with a head of zeros where its own
    has another shape; empty: random weights."""

    def __post_init__(self) -> None:
        at_least("model", self, filters=1)
        if min(self.hidden, default=1) < 1:
            raise InnerloopError("model", "`hidden` widths must be 1 or more", got=self.hidden)


@dataclass(frozen=True)
class InnerConfig:
    """The inner loop."""

    steps: int = 1
    """Inner steps while training."""
    learning_rate: float = 0.01
    """Inner step size, for a loss that is a mean over examples."""
    optimizer: Literal["sgd", "adam", "kept_adam"] = "sgd"
    """Gradient descent, or Adam with beta1 = 0: begun anew with every task, or with second moments that tasks hand on
    (Reptile's published code)."""
    minibatch: int | None = None
    """Support examples per inner step while training; None: all."""
    derivative: Literal["unrolled", "rematerialised", "mixed"] = "unrolled"
    """How the loop is differentiated: changes time and memory, not the result."""

    def __post_init__(self) -> None:
        at_least("inner", self, steps=0, minibatch=1)


@dataclass(frozen=True)
class OuterConfig:
    """The outer loop."""

    meta_steps: int = 60_000
    """Outer updates."""
    meta_batch: int = 32
    """Tasks per outer update."""
    learning_rate: float = 0.001
    """Outer step size (Reptile's epsilon)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Outer optimiser."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How the outer step size falls to nothing over the run."""
    clip: float | None = None
    """Each element of the meta-gradient is clipped to +-clip; None: not at all."""
    chunk: int | None = None
    """Tasks vectorised at a time on a device; None: one for convolutions on a CPU, else all."""
    parts: int = 1
    """Devices that share one copy of the parameters, each holding its piece, for models too large for one."""
    log_every: int = 100
    """Outer updates per dispatch and log line."""
    validate_every: int = 1000
    """Outer updates between validations, and one at the end; 0: none at all. Rounded to whole log lines."""
    checkpoint_every: int = 1000
    """Outer updates between checkpoints. Rounded to whole log lines."""
    snapshots: int = 10
    """Initialisations kept along the run for `innerloop analyze`, evenly apart, beside that before the first update;
    0: none at all. Rounded to whole log lines."""

    def __post_init__(self) -> None:
        at_least("outer", self, meta_steps=0, meta_batch=1, parts=1, log_every=1, snapshots=0)
        if self.clip is not None and not self.clip > 0:
            raise InnerloopError(
                "outer", "`clip` must be above 0", got=self.clip, do="give none for no clipping"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """How a number is made."""

    tasks: int = 10_000
    """Held-out tasks."""
    steps: int = 10
    """Inner steps at test; may exceed those of training."""
    minibatch: int | None = None
    """Support examples per inner step at test; None: all."""
    queries: int = 1
    """Query examples of each class (for sinusoids: of the task)."""
    normalization: Normalization = "transductive"
    """Which batch gives the normalisation's statistics: all queries of a task together (transductive), each query
    with the support set (inductive), or the support set alone (support)."""
    validation_tasks: int = 600
    """Tasks of each validation while training."""

    def __post_init__(self) -> None:
        at_least("evaluation", self, tasks=2, steps=0, minibatch=1, queries=1, validation_tasks=2)


@dataclass(frozen=True)
class RLConfig:
    """Reinforcement learning: how trajectories are made and judged, and the outer step."""

    trajectories: int = 20
    """Trajectories of every inner step and of the query while training."""
    test_trajectories: int = 40
    """The same at test."""
    test_restarts: bool = False
    """At test, where a trajectory ends before the horizon others follow in its place, until as many steps are seen as
    without early ends."""
    horizon: int = 100
    """Steps after which a trajectory is cut."""
    reward: Literal["distance", "squared"] = "distance"
    """Navigation's reward: minus the distance (published code), or minus its square (the paper's text)."""
    discount: float = 0.99
    """Weight of the next step's reward."""
    gae: float = 1.0
    """Lambda of the generalised advantages; 1: returns minus the baseline."""
    baseline: Literal["linear", "none"] = "linear"
    """What advantages are measured against."""
    surrogate: Literal["dice", "log_probability", "ratio"] = "dice"
    """The loss of the inner loop; dice alone has the right second derivative over several steps."""
    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    """The outer step: trust region, clipped objective, or the outer optimiser along the meta-gradient."""
    max_kl: float = 0.01
    """TRPO: mean divergence of the adapted policies that a step may make."""
    fisher_share: float = 1.0
    """TRPO: part of the tasks whose divergence gives the curvature."""
    conjugate_gradients: int = 10
    """TRPO: products with the curvature that find the step's direction."""
    clip: float = 0.2
    """PPO: how far the ratio of probabilities counts."""
    epochs: int = 5
    """PPO: gradient steps on the same trajectories."""
    test_rate_decay: float = 0.5
    """Inner step size at test after the first step, as a part of the first."""

    def __post_init__(self) -> None:
        at_least("rl", self, trajectories=2, test_trajectories=2, horizon=1, epochs=1, conjugate_gradients=1)
        for name in ("discount", "gae", "fisher_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InnerloopError("rl", f"`{name}` must lie in (0, 1]", got=getattr(self, name))
        for name in ("max_kl", "clip"):
            if not getattr(self, name) > 0:
                raise InnerloopError("rl", f"`{name}` must be above 0", got=getattr(self, name))


@dataclass(frozen=True)
class Config:
    """A whole run. Same config and same number of devices (with `outer.parts`, also of processes): same bits."""

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
    seed: int = 0
    """Seed of the initial weights and of the training tasks."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def spec(self) -> AlgorithmSpec:
        """What is known of the algorithm."""
        return ALGORITHMS[self.algorithm]

    @property
    def reinforcement(self) -> bool:
        """Whether tasks are environments to act in."""
        return self.data.spec.kind == "reinforcement"
