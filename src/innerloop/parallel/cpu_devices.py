"""CPU cores as JAX devices, with vectorised loops on each."""

import os

from innerloop.config.bounds import DEVICES, wrong_number
from innerloop.errors import InnerloopError
from innerloop.io.text import shown

VECTORISED = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=1"
"""XLA unrolls loops over a few dozen elements (the channels of a layer) and then cannot vectorise them, so that adding
two arrays takes six times as long. As measured, a meta-step of small networks takes a tenth less time without
unrolling."""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(devices: int | None = None) -> None:
    """Make every CPU core a JAX device, and vectorise loops on it, as the command does. Call it before JAX is used.

    It does not affect accelerators. Extra XLA options that are already in `XLA_FLAGS` are kept.

    Args:
        devices: the number of devices (None: JAX's own setting, such as `JAX_NUM_CPU_DEVICES`, else one for each core
            that the process may use).

    Raises:
        InnerloopError: if the number is not in 1..1024, or JAX has already started with another one.
    """
    import jax

    if devices is not None and (wrong := wrong_number(devices, DEVICES, integers=True)):
        raise InnerloopError("use_cores", f"the number of devices {wrong}", got=shown(devices))
    chosen, flags = jax.config.values["jax_num_cpu_devices"], os.environ.get("XLA_FLAGS", "")
    wanted = devices or (chosen if chosen > 0 else cores())
    if has_started():
        if (wanted, _with_vectorised(flags)) == (chosen, flags):  # a notebook cell that is run again
            return
        raise InnerloopError("use_cores", "JAX has started already", hint="call it before JAX's first use")
    jax.config.update("jax_num_cpu_devices", wanted)
    if _with_vectorised(flags) != flags:
        os.environ["XLA_FLAGS"] = _with_vectorised(flags)


def _with_vectorised(flags: str) -> str:
    """XLA's flags with `VECTORISED`, unless they already have extra options or name a file (no leading dash)."""
    if "xla_backend_extra_options" in flags or (flags and not flags.startswith("-")):
        return flags
    return f"{flags} {VECTORISED}".strip()


def has_started() -> bool:
    """Whether JAX already has devices. JAX has no function for this, but then refuses to change their number."""
    import jax

    before = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", before + 2)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", before)
    return False
