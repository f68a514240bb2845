"""Devices and processes: the mesh, parameter sharding, CPU cores as devices."""

from innerloop.parallel.cpu_devices import use_cores as use_cores
from innerloop.parallel.mesh import task_mesh as task_mesh
from innerloop.parallel.multi_process import Lost as Lost
from innerloop.parallel.multi_process import ProcessGroup as ProcessGroup
from innerloop.parallel.multi_process import initialize as initialize
