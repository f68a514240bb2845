"""Devices and processes: the mesh, parameter sharding, CPU cores as devices.

The names are imported on first use, because the command needs some of these modules before JAX is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop.parallel.cpu_devices import use_cores as use_cores
    from innerloop.parallel.mesh import task_mesh as task_mesh
    from innerloop.parallel.multi_process import Lost as Lost
    from innerloop.parallel.multi_process import ProcessGroup as ProcessGroup
    from innerloop.parallel.multi_process import initialize as initialize

_HOMES = {
    "use_cores": "cpu_devices",
    "task_mesh": "mesh",
    "Lost": "multi_process",
    "ProcessGroup": "multi_process",
    "initialize": "multi_process",
}


__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
