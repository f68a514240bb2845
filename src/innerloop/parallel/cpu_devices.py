"""The cores of a CPU: as devices, each with vectorised loops."""

import os

from innerloop.config.bounds import DEVICES, wrong_number
from innerloop.errors import InnerloopError
from innerloop.io.text import shown

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
    devices below 1 or above 1024, and if JAX has started with others.
    """
    import jax

    if devices is not None and (wrong := wrong_number(devices, DEVICES, integers=True)):
        raise InnerloopError("use_cores", f"the number of devices {wrong}", got=shown(devices))
    chosen, flags = jax.config.values["jax_num_cpu_devices"], os.environ.get("XLA_FLAGS", "")
    wanted = devices or (chosen if chosen > 0 else cores())
    if has_started():
        if (wanted, _with_vectorised(flags)) == (chosen, flags):  # the same cell of a notebook once more
            return
        raise InnerloopError("use_cores", "JAX has started already", do="call it before JAX's first use")
    jax.config.update("jax_num_cpu_devices", wanted)
    if _with_vectorised(flags) != flags:
        os.environ["XLA_FLAGS"] = _with_vectorised(flags)


def _with_vectorised(flags: str) -> str:
    """XLA's flags with ours, unless they have extra options already or (without a dash) name a file."""
    if "xla_backend_extra_options" in flags or (flags and not flags.startswith("-")):
        return flags
    return f"{flags} {VECTORISED}".strip()


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
