"""The settings of an inner loop; `innerloop.engine.inner.unroll` runs it.

How the loop is differentiated only changes the cost: `unrolled` keeps the activations of every step, `rematerialised`
keeps only theta_i and recomputes each step in the backward pass, and `mixed` replaces the backward pass through a
gradient by a forward-over-reverse Hessian-vector product (`innerloop.engine.inner.mixed_mode`). All three give the same
gradient, and each can be combined with checkpoints through time (`innerloop.engine.inner.nested_scan`).
"""

from dataclasses import KW_ONLY, dataclass, fields
from typing import Literal, get_args

import jax
import optax

from innerloop.engine.inner.nested_scan import square_root_segments
from innerloop.engine.optimizer import step_size_of
from innerloop.engine.pytree import Selection, check_selection
from innerloop.errors import InnerloopError, check_choice, check_count, check_flag

Derivative = Literal["unrolled", "rematerialised", "mixed"]

FEW_STEPS = 5
"""On a GPU, loops of up to this many steps are unrolled (mini-ImageNet shape, five steps: 39 % less memory traffic,
counted in the compiled program)."""


@dataclass(frozen=True)
class InnerLoop:
    """How parameters are adapted to one task.

    Attributes:
        rule: any Optax optimiser; its state is reset for every task. Its square roots (Adam, norm clipping) have
            derivative 0 at 0 (`innerloop.engine.inner.safe_roots`). A line search, as in `optax.lbfgs`, has no
            derivative in reverse: `adapt`, `fomaml`, `reptile` and `imaml` can use it, other algorithms cannot, even
            with `last=0`.
        steps: k, the number of inner steps; 0 leaves the parameters unchanged.
        select: the parameters to adapt (None: all): a path prefix such as `head`, a pattern such as `**/bias`, several
            of these, or a function of the path.
        minibatch: examples per step, taken from the support set in order and wrapping around (None: all of them). The
            samplers shuffle the support set, so consecutive examples are a random minibatch (Reptile). Examples that
            the mask of a `Batch` excludes are skipped.
        derivative: how the loop is differentiated; changes the cost, never the result. `mixed` has derivatives of every
            order in reverse mode (`jax.grad`), but none in forward mode (`jax.jvp`).
        stream: whether the support set is a sequence of batches, with a leading axis of at least `steps` on every
            leaf; step i learns from item i.
        last: the meta-gradient flows through the gradients of the last `last` steps; earlier gradients, also those that
            the rule takes itself by `value_fn`, are held constant (None: through all; 0: first order).
        checkpoints: for long loops, the number of steps whose parameters and optimiser state are kept for the backward
            pass; the steps between them are recomputed (None: keep all; "sqrt": the square root of `steps`, which needs
            the least memory). Changes the cost, never the result.
        offload: whether to keep the checkpoints in host memory until the backward pass reads them, on devices that have
            their own memory. Changes the cost, never the result.
        unroll: steps in one iteration of the compiled loop, as for `jax.lax.scan`. Unrolling a few cheap steps makes
            them faster, but they take longer to compile. Changes the cost, never the result. None: on a GPU, loops of
            up to five steps are unrolled, which saves copying activations into and out of loop buffers; otherwise one.

    Raises:
        InnerloopError: if `steps` or `last` is negative; `minibatch`, `checkpoints` or `unroll` is below 1;
            `derivative` is unknown; `stream` is combined with `minibatch`; `offload` is set without
            `checkpoints`; `select` is not a selection; or `rule` is not an optimiser.
    """

    rule: optax.GradientTransformation
    steps: int = 1
    _: KW_ONLY
    select: Selection = None
    minibatch: int | None = None
    derivative: Derivative = "unrolled"
    stream: bool = False
    last: int | None = None
    checkpoints: int | Literal["sqrt"] | None = None
    offload: bool = False
    unroll: int | None = None

    def __post_init__(self) -> None:
        for name, minimum in {"steps": 0, "last": 0, "minibatch": 1, "checkpoints": 1, "unroll": 1}.items():
            value = getattr(self, name)
            left = name != "steps" and value is None
            if not left and not (name == "checkpoints" and isinstance(value, str) and value == "sqrt"):
                # As `int`, which is hashable whatever type was given.
                object.__setattr__(self, name, check_count("InnerLoop", name, value, minimum))
        for name in ("stream", "offload"):
            check_flag("InnerLoop", name, getattr(self, name))
        if self.stream and self.minibatch is not None:
            hint = "make each item of the stream a minibatch"
            raise InnerloopError("InnerLoop", "a stream takes no `minibatch`", got=self.minibatch, hint=hint)
        if self.offload and self.checkpoints is None:
            hint = 'give `checkpoints` too, such as "sqrt"'
            raise InnerloopError(
                "InnerLoop", "`offload` applies to checkpoints, and there are none", hint=hint
            )
        check_choice("InnerLoop", "derivative", self.derivative, get_args(Derivative))
        check_selection(self.select)
        if not hasattr(self.rule, "update"):
            hint = "pass optax.sgd(0.1), for example"
            raise InnerloopError("InnerLoop", "`rule` must be an Optax optimiser", got=self.rule, hint=hint)

    def __repr__(self) -> str:
        rule = "<optimiser>" if self.step_size is None else f"<step size {self.step_size:g}>"
        others = [(f.name, repr(getattr(self, f.name)), repr(f.default)) for f in fields(self)[1:]]
        kept = [f"{name}={value}" for name, value, default in others if value != default]
        return f"InnerLoop({', '.join([f'rule={rule}', *kept])})"

    @property
    def step_size(self) -> float | None:
        """The constant step size of the rule; None if it is unknown, as for a schedule."""
        return step_size_of(self.rule)

    @property
    def segments(self) -> int | None:
        """The number of checkpoints through time (None: one per step)."""
        return square_root_segments(self.steps) if self.checkpoints == "sqrt" else self.checkpoints

    @property
    def steps_at_once(self) -> int:
        """The number of steps per iteration of the compiled loop."""
        if self.unroll is not None:
            return self.unroll
        return self.steps if jax.default_backend() == "gpu" and 0 < self.steps <= FEW_STEPS else 1


def check_inner(inner: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is an inner loop."""
    if not isinstance(inner, InnerLoop):
        hint = "pass InnerLoop(optax.sgd(0.1), steps=5), for example"
        raise InnerloopError(who, "`inner` must be an InnerLoop", got=type(inner).__name__, hint=hint)
