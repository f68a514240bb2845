"""Calibrate sensors from five readings each: many small regression tasks, and a learner for new sensors.

Every sensor distorts the true value in its own way (gain, offset, nonlinearity, temperature drift). Hundreds of sensors
were calibrated in the laboratory. A new one has to be calibrated from five reference readings. A model trained on all
sensors together cannot know which sensor it sees, and a model trained on one sensor sees too few readings. MAML learns
an initialisation from which a few steps on five readings suffice. The same problem arises with patients, shops or
machines.

Run with: python examples/sensors.py
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from innerloop import MLP, Batch, InnerLoop, Learner, OuterLoop, Task, joint, maml, mean_squared_error

READINGS, REFERENCES = 30, 5
INNER = InnerLoop(optax.sgd(0.05), steps=5)


def make_sensors(count, seed):
    """The laboratory's data: readings and temperatures [sensors, 30, 2], true values [sensors, 30, 1]."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high: rng.uniform(low, high, (count, 1))
    gain, offset, bend, drift = draw(0.6, 1.6), draw(-0.5, 0.5), draw(-0.4, 0.4), draw(-0.6, 0.6)
    truth, temperature = rng.uniform(-1, 1, (2, count, READINGS))
    reading = gain * truth + offset + bend * truth**2 + drift * temperature
    reading += rng.normal(0, 0.01, reading.shape)
    inputs = np.stack([reading, temperature], axis=-1)
    return inputs.astype(np.float32), truth[..., None].astype(np.float32)


class Sensors(NamedTuple):
    """A distribution over tasks from a table of arrays; all it needs is `sample(key) -> Task`."""

    inputs: jax.Array
    targets: jax.Array

    def sample(self, key):
        key_sensor, key_order = jax.random.split(key)
        sensor = jax.random.randint(key_sensor, (), 0, len(self.inputs))
        order = jax.random.permutation(key_order, READINGS)
        batch = lambda rows: Batch(self.inputs[sensor][rows], self.targets[sensor][rows])
        return Task(batch(order[:REFERENCES]), batch(order[REFERENCES:]))


def meta_train(algorithm, sensors, steps):
    model = MLP(2, 1, hidden=(32, 32), activation="tanh", key=jax.random.key(0))
    loop = OuterLoop(algorithm, optax.adam(2e-3), sensors, meta_batch=16)
    state, _ = loop.run(loop.init(model, jax.random.key(1)), steps)
    return state.params


def error(params, algorithm, inputs, targets):
    """Root-mean-square error on new sensors, each calibrated from its first five readings."""
    learner = Learner(params, algorithm)
    squares = []
    for x, y in zip(inputs, targets, strict=True):
        learner.fit(x[:REFERENCES], y[:REFERENCES])
        squares.append(np.mean((learner.predict(x[REFERENCES:]) - y[REFERENCES:]) ** 2))
    return float(np.sqrt(np.mean(squares)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    smoke = parser.parse_args().smoke
    sensors = Sensors(*map(jnp.asarray, make_sensors(200, seed=0)))
    new = make_sensors(10 if smoke else 100, seed=1)
    steps = 300 if smoke else 5000
    loss_fn = mean_squared_error()
    for name, algorithm in (("one model for all", joint(loss_fn, INNER)), ("MAML", maml(loss_fn, INNER))):
        found = error(meta_train(algorithm, sensors, steps), algorithm, *new)
        print(f"{name}: error {found:.3f} of a range of 2, after five reference readings")


if __name__ == "__main__":
    main()
