"""Counts that are none, and arguments of another kind, are refused where they are given, from every door.

In a process without the checks of types that tests otherwise run under.
"""

import subprocess
import sys

import pytest

from innerloop.engine.pytree import FORMS
from innerloop.errors import InnerloopError, check_count

BEFORE = """
import jax, jax.numpy as jnp, numpy as np, optax
from dataclasses import replace
import innerloop.analysis
from innerloop.engine.evaluation import evaluate as evaluation
import innerloop as il
from innerloop.engine.outer.persistent_adam import persistent_adam
from innerloop.parallel.mesh import task_mesh
from innerloop.rl import Bandit, GymnasiumFamily, MetaIterations, MetaSampler, SampleProcessor, surrogates
from innerloop.rl import evaluate_policy, gradient_update, ppo_update, trpo_update
params, tasks, key = {"w": jnp.zeros(2)}, il.Sinusoid(2, 2), jax.random.key(0)
loss = il.mean_squared_error(lambda params, x: x * params["w"].sum())
algorithm = il.maml(loss, il.InnerLoop(optax.sgd(0.1), 2))
loop = lambda **changes: il.OuterLoop(algorithm, optax.sgd(0.1), tasks, **{"meta_batch": 2, **changes})
task = tasks.sample(key)
evaluator = lambda **changes: evaluation.evaluator(algorithm, tasks, **{"num_tasks": 4, **changes})
classes = il.ClassArrays.from_lists([np.zeros((2, 4, 4, 1), np.float32)] * 2, ["a", "b"])
curve = evaluation.Curve((0,), {"loss": np.zeros((2, 1))})
sampled = lambda *given: MetaSampler(*given, *[Bandit(), algorithm, SampleProcessor()][len(given):])
iterations = lambda **changes: MetaIterations(
    sampled(), gradient_update(optax.sgd(0.1)), **{"meta_batch": 2, **changes}
)
evaluated = lambda **changes: il.evaluate(algorithm, params, tasks, key=key, **{"num_tasks": 4, **changes})
"""
NO_CALLBACK = (
    "`callbacks` must be a list of callbacks, got 1; pass instances of subclasses of innerloop.Callback: "
    "`callbacks=[Mine()]`."
)
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
    "il.analysis.svcca(np.eye(4), np.eye(4), variance='a')": "SVCCA: `variance` must be a number, got 'a'.",
    "il.analysis.mean_cca(['a'], np.eye(4))": "CCA: activations must be real numbers, got <U1.",
    "il.analysis.rbf_cka(np.eye(4), np.eye(4), width='a')": "CKA: `width` must be a number, got 'a'.",
    "il.analysis.linear_cka(np.eye(4), np.eye(4), debiased='a')": "CKA: `debiased` must be True or False, got 'a'.",
    "il.analysis.linear_cka(np.eye(4), np.eye(4), dtype='a')": "CKA: `dtype` is unknown, got 'a'; choose among: "
    "float32, float64.",
    "il.Learner(params, algorithm, classification='no')": "Learner: `classification` is unknown, got 'no'; choose "
    "among: None, True, False.",
    "il.TaskList([task, (task, task)])": "TaskList: item 1 must be a task, got tuple; give a list of "
    "innerloop.Task(support, query).",
    "il.train(None, '')": "path: must name a file or folder, got ''.",
    "il.train('sinusoid-maml', 'run')": "train: `config` must be a config, got 'sinusoid-maml'; pass "
    "innerloop.preset(NAME), for example.",
    "il.train(il.preset('sinusoid-maml'), 'run', callbacks=[1])": f"train: {NO_CALLBACK}",
    "il.train(il.preset('sinusoid-maml'), 'run', progress=2)": "train: `progress` must be True or False, got 2.",
    "il.reproduce('run', 'again', callbacks=[1])": f"reproduce: {NO_CALLBACK}",
    "il.load_trained('sinusoid-maml').tasks('tset')": "tasks: `split` is unknown, got 'tset'; choose among: test, "
    "validation, train.",
    "il.Learner(params, algorithm, normalization='x')": "Learner: `normalization` is unknown, got 'x'; choose among: "
    "transductive, inductive, support.",
}
NO_MESH = (
    "`mesh` must be a mesh with an axis `tasks`, got 2; pass innerloop.parallel.task_mesh(meta_batch), for "
    "example."
)
NO_ALGORITHM = "needs an algorithm, got maml; pass maml(loss_fn, InnerLoop(optax.sgd(0.1), 5)), for example."
TAKE_INNER = {name: name for name in ("anil", "boil", "cavia", "online_maml")}
TAKE_INNER |= {"imaml": "IMAML", "maml": "MAML", "meta_sgd": "MetaSGD", "reptile": "Reptile"}
RATES = ("meta_sgd", "maml_plus_plus")
NO_INNER = (
    "`inner` must be an InnerLoop, got GradientTransformationExtraArgs; pass InnerLoop(optax.sgd(0.1), steps=5), "
    "for example."
)
REFUSED |= {f"il.{name}(loss, optax.sgd(0.1))": f"{who}: {NO_INNER}" for name, who in TAKE_INNER.items()}
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
    "MetaSampler(None, il.maml, None, 4)": f"MetaSampler: {NO_ALGORITHM}",
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
BATCH = "give innerloop.Batch(inputs, targets), or write a `loss_fn(params, batch)` for batches of your own."
TRACED = "compute it with jax.numpy, without float(), bool() or `if` on values of arrays."
NO_SCORES = (
    "the scores must have shape [examples, ways], got (4, 1, 3); return one row of scores per example; use "
    "jax.vmap if these are several tasks."
)
SHAPES = "got a batch of float32[2,1], float32[2,1]"
KEY = "`key` must be a single jax.random key, got 5; pass jax.random.key(0)."
REFUSED |= {
    # A batch or a task of another kind
    "algorithm.adapt(params, tuple(task.support[:2]))": f"loss: needs a Batch, got tuple; {BATCH}",
    "algorithm.adapt(task.support, params)": f"loss: needs a Batch, got dict; {BATCH}",
    "algorithm.adapt(params, il.Batch(np.array(['a', 'b']), task.support.targets))": "loss_fn: cannot be computed "
    "(Dtype "
    "<U1 is not a valid JAX array type. Only arrays of numeric types are supported by JAX.), got a batch of <U1[2], "
    "float32[2,1]; give a batch of arrays of numbers, each with one row per example.",
    "algorithm.adapt(params, il.Batch([0.0, 1.0], [0.0, 1.0]))": "loss_fn: cannot be computed (unsupported operand "
    "type(s) for *: 'list' and 'DynamicJaxprTracer'), got a batch of 0.0, 1.0, 0.0, 1.0; give a batch of arrays of "
    "numbers, each with one row per example.",
    "algorithm.meta_grad(params, task.support)": "MAML.meta_grad: needs a task, got Batch; pass "
    "innerloop.Task(support, query).",
    "il.check_meta_gradient(algorithm, params, None)": "check_meta_gradient: needs a task, got NoneType; pass "
    "innerloop.Task(support, query).",
    "il.TaskList(task)": "TaskList: item 0 must be a task, got Batch; give a list of innerloop.Task(support, query).",
    "il.TaskList(np.zeros(3))": "TaskList: needs a sequence of tasks, got ndarray; give a list of "
    "innerloop.Task(support, query).",
    "il.TaskList([il.Task(il.Batch(np.array([None]), np.ones(1)), task.query)])": "TaskList: `inputs` in the support "
    "set "
    "of task 0 must be an array of numbers, got dtype object; give np.asarray(values), for example.",
    "il.TaskList([il.Task(il.Batch([1.0], [1.0]), task.query)])": "TaskList: `inputs/0` in the support set of task 0 "
    "must be an array of numbers, got float; give np.asarray(values), for example.",
    # Parameters of another kind, and what was swapped with them
    "il.mean_squared_error()(params, task.support)": "loss: the parameters are not callable, got dict; "
    "give the loss its model, `apply(params, inputs)`.",
    "il.Learner(algorithm, params)": "Learner: needs an algorithm, got dict; pass maml(loss_fn, "
    "InnerLoop(optax.sgd(0.1), 5)), for example.",
    "loop().init(algorithm, key)": "OuterLoop.init: needs a pytree of float arrays, got MAML; keep only float arrays "
    "in "
    "the parameters and close over the rest.",
    "il.unroll(algorithm.inner, loss, params, task.support)": "unroll: `inner` must be an InnerLoop, got BatchLoss; "
    "pass InnerLoop(optax.sgd(0.1), steps=5), for example.",
    "il.load_params('', params)": "path: must name a file or folder, got ''.",
    "il.load_params(None, params)": "path: this is not a path, got None; give a string or a pathlib.Path.",
    "il.measure(il.load_trained('sinusoid-maml'), split='tset')": "measure: `split` is unknown, got 'tset'; choose "
    "among: test, validation, train.",
    "il.measure('sinusoid-maml')": "measure: needs a trained model, got str; pass innerloop.load_trained(source).",
    "il.preset(None)": "preset: unknown preset, got None; `innerloop list` lists the presets.",
    # A loss that cannot be one
    "il.maml(lambda params, batch: 1, algorithm.inner).adapt(params, task.support)": "loss_fn: the loss must be one "
    "float, got shape () of int32; compute it from the parameters, which are floats.",
    "il.maml(lambda params, batch: float(params['w'][0]), algorithm.inner).adapt(params, task.support)": "loss_fn: "
    "cannot be computed (Abstract tracer value encountered where concrete value is expected: traced array with shape "
    f"float32[]), {SHAPES}; {TRACED}",
    "il.maml(lambda params, batch: batch['x'], algorithm.inner).adapt(params, task.support)": "loss_fn: cannot be "
    f"computed (tuple indices must be integers or slices, not str), {SHAPES}; give the shapes and the structure that "
    f"it "
    "expects.",
    "il.maml(lambda params, batch: params['v'], algorithm.inner).adapt(params, task.support)": "loss_fn: cannot be "
    f"computed (KeyError: 'v'), {SHAPES}; give the shapes and the structure that it expects.",
    "il.BatchLoss(lambda outputs, targets: 0.0, loss.apply)(params, task.support._replace(mask=np.ones(2, bool)))": (
        "BatchLoss: `measure` must take the mask of padded tasks; define measure(outputs, targets, mask)."
    ),
    "il.maml(il.mean_squared_error, algorithm.inner).adapt(params, task.support)": "BatchLoss: a loss by name takes "
    "the model, not a batch; call it first, as in maml(mean_squared_error(), ...).",
    "il.BatchLoss(None)": "BatchLoss: `measure` must be a function, got NoneType; pass `measure(outputs, targets)`.",
    "il.Loss(loss, random='no')": "Loss: `random` must be True or False, got 'no'.",
    "il.maml(surrogates.clipped, algorithm.inner).adapt(params, task.support)": "loss_fn: cannot be computed "
    f"(clipped() takes 1 positional argument but 2 were given), {SHAPES}; it is called as loss_fn(params, batch); "
    "a function that makes a loss must be called first.",
    # Policies
    "sampled(Bandit(), algorithm, SampleProcessor(), '4')": "MetaSampler.trajectories: must be a whole number, got "
    "'4'.",
    "sampled(Bandit)": "Bandit: an environment must be an instance, got the class; pass Bandit(...).",
    "sampled(None)": "NoneType: an environment needs `horizon`; see innerloop.rl.Environment.",
    "sampled(Bandit(), algorithm, None)": "MetaSampler: needs a processor, got NoneType; pass SampleProcessor().",
    "sampled(Bandit(), algorithm, SampleProcessor)": "MetaSampler: needs a processor, got SampleProcessor; pass "
    "SampleProcessor().",
    "MetaIterations(Bandit(), None, meta_batch=2)": "MetaIterations: needs a MetaSampler, got Bandit.",
    "MetaIterations(sampled(), None, meta_batch=2)": "MetaIterations: needs an outer step, got NoneType; pass "
    "trpo_update(), for example.",
    "trpo_update(sampled())": "trpo_update: needs a TrustRegion, got MetaSampler.",
    **{
        f"{who}(0.1)": f"{who}: `optimizer` must be an Optax optimiser, got 0.1; pass optax.adam(1e-3), for example."
        for who in ("ppo_update", "gradient_update")
    },
    "GymnasiumFamily(None, None, None)": "GymnasiumFamily: `set_task` must be a function, got NoneType; pass "
    "`set_task(environment, task)`.",
    "evaluate_policy(algorithm, params, key=key, num_tasks=2)": "evaluate_policy: needs a MetaSampler, got MAML.",
    "iterations(mesh=2)": f"MetaIterations: {NO_MESH}",
    "il.IteratorOuterLoop(il.maml, optax.sgd(0.1), [], meta_batch=2)": f"IteratorOuterLoop: {NO_ALGORITHM}",
    "il.IteratorOuterLoop(algorithm, 3, [], meta_batch=2)": "IteratorOuterLoop: `optimizer` must be an Optax "
    "optimiser, got 3; pass optax.adam(1e-3), for example.",
    "iterations().run(None, 0)": "MetaIterations.run: `steps` must be 1 or more, got 0.",
    "iterations().run(None, 1)": "MetaIterations.run: needs a MetaState, got NoneType; pass the state that `init` or "
    "`run` returned.",
    "il.evaluate(algorithm, params, Bandit(), key=key)": "evaluate: `tasks` must be a distribution of tasks, got "
    "Bandit; train policies with innerloop.fit_policy, and evaluate them with rl.evaluate_policy.",
    # Settings that are changed later
    **{
        f"il.{name}(loss, algorithm.inner).with_inner(select=None)": f"{name}: `{what}` must be a selection of "
        f"parameters, got None; {FORMS}."
        for name, what in {"anil": "head", "boil": "head", "cavia": "context"}.items()
    },
    "il.imaml(loss, algorithm.inner).with_inner(stream=True)": "imaml: the solution is that of one support set, not of "
    "a stream; use maml, or give the whole support set at every step.",
    "il.online_maml(loss, algorithm.inner).with_inner(stream=False)": "online_maml: `stream` must be True, got False; "
    "use maml for a support set without an order.",
    **{
        f"replace(il.{name}(loss, algorithm.inner), {change})": f"{name}: {told}"
        for name, change, told in (
            ("imaml", "proximal=-1.0", "`proximal` must be above 0, got -1.0."),
            ("imaml", "cg_steps=0", "`cg_steps` must be 1 or more, got 0."),
            (
                "imaml",
                "loss_fn=il.Loss(loss, random=True)",
                "the loss must be a function of parameters and batch alone; "
                "use maml, which differentiates the steps that were taken.",
            ),
            ("reptile", "alpha=-1.0", "`alpha` must be above 0, got -1.0."),
            ("meta_sgd", "rates=-1.0", "`rates` must be 0 or more, got -1.0."),
            ("maml_plus_plus", "rates=-1.0", "`rates` must be 0 or more, got -1.0."),
            ("maml_plus_plus", "first_order_updates=-1", "`first_order_updates` must be 0 or more, got -1."),
        )
    },
    # Settings and names
    "il.reptile(loss, algorithm.inner, alpha='1')": "reptile: `alpha` must be a number, got '1'.",
    "il.imaml(loss, algorithm.inner, proximal=None)": "imaml: `proximal` must be a number, got None.",
    "il.meta_sgd(loss, algorithm.inner, rates=jnp.ones(2))": "meta_sgd: `rates` must be a number, got Array([1., 1.], "
    "dtype=float32).",
    "il.maml_plus_plus(loss, algorithm.inner, rates=-1.0)": "maml_plus_plus: `rates` must be 0 or more, got -1.0.",
    "evaluated(num_tasks='5')": "evaluate: `num_tasks` must be a whole number, got '5'.",
    "evaluated(on_nonfinite=np.zeros(2))": "evaluate: `on_nonfinite` is unknown, got array([0., 0.]); choose among: "
    "raise, keep.",
    "curve.mean('accuracy')": "Curve: `name` is unknown, got 'accuracy'; choose among: loss.",
    "loop(mesh=2)": f"OuterLoop: {NO_MESH}",
    "il.InnerLoop(optax.sgd(0.1), stream='no')": "InnerLoop: `stream` must be True or False, got 'no'.",
    "il.partition(params, key)": "select: is not a selection of parameters, got Array((), dtype=key<fry>) overlaying: "
    "[0 "
    "0]; give a name like 'head', a pattern like '**/bias', several of these, or a function of the path.",
    "innerloop.nn.losses.softmax_cross_entropy(jnp.ones((4, 1, 3)), jnp.zeros(4, int))": f"loss: {NO_SCORES}",
    "innerloop.nn.losses.accuracy(jnp.ones((4, 1, 3)), jnp.zeros(4, int))": f"accuracy: {NO_SCORES}",
    "innerloop.nn.losses.squared_error(jnp.ones(2), jnp.ones(2), [True, False])": "loss: the mask must be an array, "
    "got list; give the mask as an array, np.asarray(mask).",
    "il.Learner(params, algorithm, shape=5)": "Learner: `shape` must be the shape of one example, got 5; give a tuple "
    "such as (28, 28, 1), with None for an axis of any size.",
    "il.Learner(params, algorithm).fit(key, [0])": "Learner.fit: x must be one array, got PRNGKeyArray.",
    # Data, models and their keys
    "il.Episodes(None, 2, 1, 1)": "Episodes: `arrays` must be class arrays, got NoneType; pass "
    "innerloop.ClassArrays.from_lists(arrays, names), for example.",
    "il.Episodes(classes, '2', 1, 1)": "Episodes: `ways` must be a whole number, got '2'.",
    "il.ClassArrays.from_lists(np.zeros(3), ['a'])": "ClassArrays: `per_class` must be a list of NumPy arrays, got "
    "ndarray.",
    "classes.select('a')": "ClassArrays: `names` must be a list of names, got 'a'.",
    "il.Augmented(None)": "Augmented: `tasks` must be a distribution of tasks, got NoneType; pass an "
    "object with a method `sample(key)` that returns a Task.",
    "tasks.sample(5)": f"Sinusoid.sample: {KEY}",
    "il.Episodes(classes, 1, 1, 1).sample(5)": f"Episodes.sample: {KEY}",
    "il.TaskList([task]).sample(5)": f"TaskList.sample: {KEY}",
    "task_mesh(None)": "task_mesh: `meta_batch` must be a whole number, got None.",
    "il.MLP(1, 1, key=5)": f"MLP: {KEY}",
    "il.MLP(1, 1, hidden=40, key=key)": "MLP: `hidden` must be a sequence of whole numbers, got 40.",
    "il.MLP(1, 1, normalize='no', key=key)": "MLP: `normalize` must be True or False, got 'no'.",
    "il.MLP('1', 1, key=key)": "MLP: `inputs` must be a whole number, got '1'.",
    "il.Conv4(5, image_shape=28, key=key)": "Conv4: `image_shape` must be a sequence of 3 whole numbers, got 28.",
    "il.tables.from_frame({'a': [1]}, task='a', y=None)": "tables.from_frame: `y` must be a list of names, got None.",
    "il.tables.from_frame({'a': [1]}, task=['a'], y='a')": "tables.from_frame: `task` must name a column, got ['a'].",
}
AFTER = """
inner = il.InnerLoop(optax.sgd(0.1), jnp.asarray(2), minibatch=np.int32(1), checkpoints="sqrt")
assert (type(inner.steps), type(inner.minibatch), inner.checkpoints) == (int, int, "sqrt")
one = loop(meta_batch=jnp.asarray(2), chunk=np.int8(1))
one.run(one.init(params, key), np.asarray(2))
evaluated(num_tasks=jnp.asarray(4), chunk=jnp.asarray(2), record=(np.int64(0), jnp.asarray(2)))
jax.eval_shape(lambda rates: il.meta_sgd(loss, inner, rates=rates).init(params), 0.1)  # traced
"""


def test_public_calls_reject_invalid_arguments():
    tried = [
        f"try:\n    {call}\n    print('accepted')\nexcept il.InnerloopError as error:\n    print(error)\n"
        for call in REFUSED
    ]
    code = BEFORE + "".join(tried) + AFTER
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert dict(zip(REFUSED, done.stdout.splitlines(), strict=True)) == REFUSED


def test_check_count_enforces_limits():
    assert check_count("who", "name", 3, 3, 3) == 3
    for number, told in ((2, "3 or more"), (4, "3 or less")):
        with pytest.raises(InnerloopError, match=f"who: `name` must be {told}, got {number}"):
            check_count("who", "name", number, 3, 3)
