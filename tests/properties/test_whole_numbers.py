"""Counts that are none, and arguments of another kind, are refused where they are given, from every door.

In a process without the checks of types that tests otherwise run under.
"""

import subprocess
import sys

import pytest

from innerloop.errors import InnerloopError, check_count

BEFORE = """
import jax, jax.numpy as jnp, numpy as np, optax
import innerloop.engine.evaluate
import innerloop as il
from innerloop.engine.persistent_adam import persistent_adam
params, tasks, key = {"w": jnp.zeros(2)}, il.Sinusoid(2, 2), jax.random.key(0)
loss = il.mean_squared_error(lambda params, x: x * params["w"].sum())
algorithm = il.maml(loss, il.InnerLoop(optax.sgd(0.1), 2))
loop = lambda **changes: il.OuterLoop(algorithm, optax.sgd(0.1), tasks, **{"meta_batch": 2, **changes})
task = tasks.sample(key)
evaluator = lambda **changes: innerloop.engine.evaluate.evaluator(algorithm, tasks, **{"num_tasks": 4, **changes})
evaluated = lambda **changes: il.evaluate(algorithm, params, tasks, key=key, **{"num_tasks": 4, **changes})
"""
REFUSED = {
    "il.InnerLoop(optax.sgd(0.1), True)": "InnerLoop: `steps` must be a whole number, got True.",
    "il.InnerLoop(optax.sgd(0.1), 1.5)": "InnerLoop: `steps` must be a whole number, got 1.5.",
    "il.InnerLoop(optax.sgd(0.1), None)": "InnerLoop: `steps` must be a whole number, got None.",
    "il.InnerLoop(optax.sgd(0.1), minibatch='sqrt')": "InnerLoop: `minibatch` must be a whole number, got 'sqrt'.",
    "il.InnerLoop(optax.sgd(0.1), last='sqrt')": "InnerLoop: `last` must be a whole number, got 'sqrt'.",
    "il.InnerLoop(optax.sgd(0.1), checkpoints=np.arange(2))": "InnerLoop: `checkpoints` must be a whole number, got "
    "array([0, 1]).",
    "il.InnerLoop(optax.sgd(0.1), unroll=True)": "InnerLoop: `unroll` must be a whole number, got True.",
    "il.InnerLoop(optax.sgd(0.1), minibatch=0)": "InnerLoop: `minibatch` must be 1 or more, got 0.",
    "loop(meta_batch='4')": "OuterLoop: `meta_batch` must be a whole number, got '4'.",
    "loop(meta_batch=1.5)": "OuterLoop: `meta_batch` must be a whole number, got 1.5.",
    "loop(meta_batch=0)": "OuterLoop: `meta_batch` must be 1 or more, got 0.",
    "loop(chunk=0.5)": "OuterLoop: `chunk` must be a whole number, got 0.5.",
    "loop().run(loop().init(params, key), 1.5)": "OuterLoop.run: `steps` must be a whole number, got 1.5.",
    "evaluated(num_tasks=2.5)": "evaluate: `num_tasks` must be a whole number, got 2.5.",
    "evaluated(chunk=1.5)": "evaluate: `chunk` must be a whole number, got 1.5.",
    "evaluated(record=1)": "evaluate: `record` must be a sequence, got 1; give several numbers of steps, such as "
    "(0, 5).",
    "evaluated(record=(1.0,))": "evaluate: recorded steps must lie in 0..2, got (1.0,).",
    "evaluated(record=(True,))": "evaluate: recorded steps must lie in 0..2, got (True,).",
    "evaluated(record=(np.arange(2),))": "evaluate: recorded steps must lie in 0..2, got (array([0, 1]),).",
    "evaluator(batch_size=1.5)": "evaluate: `batch_size` must be a whole number, got 1.5.",
    "evaluator(batch_size=0)": "evaluate: `batch_size` must be 1 or more, got 0.",
    "evaluated(record=(0.5,))": "evaluate: recorded steps must lie in 0..2, got (0.5,).",
    "il.Learner(params, algorithm, classification='no')": "Learner: `classification` is unknown, got 'no'; choose "
    "among: None, True, False.",
    "il.TaskList([task, (task, task)])": "TaskList: item 1 must be a task, got tuple; give a list of "
    "innerloop.Task(support, query).",
    "il.train('sinusoid-maml', 'run')": "train: `config` must be a config, got 'sinusoid-maml'; pass "
    "innerloop.preset(NAME), for example.",
    "il.Learner(params, algorithm, normalization='x')": "Learner: `normalization` is unknown, got 'x'; choose among: "
    "transductive, inductive, support.",
}
NO_ALGORITHM = "needs an algorithm, got maml; pass maml(loss_fn, InnerLoop(optax.sgd(0.1), 5)), for example."
TAKE_INNER = {name: name for name in ("anil", "boil", "cavia", "imaml", "online_maml", "reptile")}
RATES = ("meta_sgd", "maml_plus_plus")
NO_INNER = (
    "`inner` must be an InnerLoop, got GradientTransformationExtraArgs; pass InnerLoop(optax.sgd(0.1), steps=5), "
    "for example."
)
REFUSED |= {
    f"il.{name}(loss, optax.sgd(0.1))": f"{who}: {NO_INNER}"
    for name, who in {**TAKE_INNER, "maml": "MAML", "meta_sgd": "MetaSGD"}.items()
}
NO_RATES = (
    "needs meta-parameters with step sizes, got dict; pass the result of the algorithm's `init(params)`."
)
NO_MOMENTS = (
    "persistent_adam: needs parameters with their second moments, got dict; use it in reptile only and outside "
    "optax.chain, and pass the result of the algorithm's `init(params)`."
)
REFUSED |= {
    "il.maml(None, il.InnerLoop(optax.sgd(0.1)))": "MAML: `loss_fn` must be a function, got NoneType; pass "
    "`loss_fn(params, batch)`.",
    "il.OuterLoop(il.maml, optax.sgd(0.1), tasks, meta_batch=2)": f"OuterLoop: {NO_ALGORITHM}",
    "il.evaluate(il.maml, params, tasks, key=key)": f"evaluate: {NO_ALGORITHM}",
    **{
        f"il.{name}(loss, algorithm.inner).adapt(params, task.support)": f"{name}: {NO_RATES}"
        for name in RATES
    },
    "il.maml(loss, il.InnerLoop(persistent_adam(0.1))).adapt(params, task.support)": NO_MOMENTS,
    "il.reptile(loss, il.InnerLoop(persistent_adam(0.1))).adapt(params, task.support)": NO_MOMENTS,
    "il.reptile(loss, algorithm.inner, alpha=0.0)": "reptile: `alpha` must be above 0, got 0.0.",
    "il.imaml(loss, il.InnerLoop(optax.sgd(0.1), 2, stream=True))": "imaml: the solution is that of one support set, "
    "not of a stream; use maml, or give the whole support set at every step.",
    "il.maml(loss, il.InnerLoop(optax.lbfgs())).meta_grad(params, task)": "meta-gradient: the loss or the inner rule "
    "has a loop without a fixed length, such as optax.lbfgs's line search; use fomaml or reptile, which do not "
    "differentiate the inner loop, or another rule.",
}
AFTER = """
inner = il.InnerLoop(optax.sgd(0.1), jnp.asarray(2), minibatch=np.int32(1), checkpoints="sqrt")
assert (type(inner.steps), type(inner.minibatch), inner.checkpoints) == (int, int, "sqrt")
one = loop(meta_batch=jnp.asarray(2), chunk=np.int8(1))
one.run(one.init(params, key), np.asarray(2))
evaluated(num_tasks=jnp.asarray(4), chunk=jnp.asarray(2), record=(np.int64(0), jnp.asarray(2)))
"""


def test_what_is_no_count_is_told_at_every_door():
    tried = [
        f"try:\n    {call}\n    print('accepted')\nexcept il.InnerloopError as error:\n    print(error)\n"
        for call in REFUSED
    ]
    code = BEFORE + "".join(tried) + AFTER
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert dict(zip(REFUSED, done.stdout.splitlines(), strict=True)) == REFUSED


def test_the_limits_of_a_count():
    assert check_count("who", "name", 3, 3, 3) == 3
    for number, told in ((2, "3 or more"), (4, "3 or less")):
        with pytest.raises(InnerloopError, match=f"who: `name` must be {told}, got {number}"):
            check_count("who", "name", number, 3, 3)
