"""The cores of a CPU: as devices, each with vectorised loops."""

import os

from innerloop.errors import InnerloopError

VECTORISED = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=1"
"""XLA unrolls loops over a few dozen numbers (a layer's channels) before it could vectorise them, and adding two arrays
then takes six times as long; left as loops they are vectorised (measured: a tenth less time a meta-step)."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(devices: int | None = None) -> None:
    """Make JAX see a CPU's cores as devices (default: all of them), and compile for them as fast as it can.

    To be called before JAX's first use; the command does. It changes nothing on an accelerator, and leaves XLA's
    extra options alone where the variable `XLA_FLAGS` has some. Raises InnerloopError for a number of devices under
    one, and if JAX already runs with another number.
    """
    if devices is not None and devices < 1:
        raise InnerloopError("devices", "must be 1 or more", got=devices)
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", cores() if devices is None else devices)
    except RuntimeError:  # JAX has started: this is not the first call in the process
        if devices not in (None, len(jax.devices())):
            do = "start a new process"
            raise InnerloopError("devices", "JAX has started already", got=devices, do=do) from None
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {VECTORISED}".strip()
