"""The cores of a CPU: as devices, each with vectorised loops."""

import os

from innerloop.errors import InnerloopError

VECTORISED = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=1"
"""XLA unrolls loops over a few dozen numbers (a layer's channels) before it could vectorise them, and adding two arrays
then takes six times as long; left as loops they are vectorised (measured: a tenth less time
a meta-step of small networks)."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(devices: int | None = None) -> None:
    """Make JAX see a CPU's cores as devices, and compile for them as fast as it can; the command does so.

    devices: how many (default: what JAX is set to, by `JAX_NUM_CPU_DEVICES` for example, else one for each core that
    the process may use). To be called before JAX's first use. It does not change what an accelerator computes, and
    leaves XLA's extra options alone where the variable `XLA_FLAGS` has some. Raises InnerloopError for a number of
    devices under one, and if JAX has started.
    """
    import jax

    if devices is not None and devices < 1:
        raise InnerloopError("use_cores", "the number of devices must be 1 or more", got=devices)
    if has_started():
        raise InnerloopError("use_cores", "JAX has started already", do="call it before JAX's first use")
    chosen = jax.config.values["jax_num_cpu_devices"]
    jax.config.update("jax_num_cpu_devices", devices or (chosen if chosen > 0 else cores()))
    flags = os.environ.get("XLA_FLAGS", "")
    # Without a dash it is the name of a file.
    if "xla_backend_extra_options" not in flags and (not flags or flags.startswith("-")):
        os.environ["XLA_FLAGS"] = f"{flags} {VECTORISED}".strip()


def has_started() -> bool:
    """Whether JAX has devices already. It refuses to change their number then; it has no way to be asked."""
    import jax

    before = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", before + 2)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", before)
    return False
