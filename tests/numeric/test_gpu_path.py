"""The code that a GPU runs, on a CPU: whole models, in every way of differentiating the inner loop."""

import jax
import pytest
from numeric_cases import assert_close, conv4_case, sgd

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import Derivative


def gradients(backend: str, derivative: Derivative, monkeypatch: pytest.MonkeyPatch):
    loss_fn, params, task = conv4_case()[:3]
    algorithm = maml(loss_fn, sgd(2, derivative=derivative))
    tasks = jax.tree.map(lambda x: jax.numpy.stack([x, x[::-1], x]), task)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    run = jax.jit(lambda params, tasks: jax.vmap(algorithm.meta_grad, (None, 0))(params, tasks)[0])
    lowered = run.lower(params, tasks)
    assert ("stablehlo.convolution" in lowered.as_text()) == (backend == "tpu")
    return lowered.compile()(params, tasks)


@pytest.fixture(scope="module")
def of_the_cpu():
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        return gradients("tpu", "unrolled", patch)


@pytest.mark.parametrize("derivative", ["unrolled", "mixed"])
def test_gpu_path_meta_gradients_match_xla_convolutions(
    derivative, of_the_cpu, monkeypatch: pytest.MonkeyPatch
):
    """Two convolutional layers with normalisation and pooling, three tasks at once."""
    assert_close(gradients("gpu", derivative, monkeypatch), of_the_cpu)
