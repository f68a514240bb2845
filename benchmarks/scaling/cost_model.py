"""A cost model of a meta-step on n devices.

    T(n) = ceil(B / n) t  +  2 (n - 1) / n  G / w  +  2 (n - 1) l

B tasks of t seconds each; G bytes of gradient; a link with a bandwidth of w bytes per second and a latency of l
seconds. The first term is the tasks of the device with the most. The others are the mean over devices, in which each
device sends 2 (n - 1) messages of G / n bytes one after the other, as in a ring all-reduce.

Assumptions: identical devices; one link per device, all usable at once; computation and communication do not overlap;
tasks take equal time; no input or output. A ring is pessimistic for latency: a tree would need log n latencies.
"""

import math
from dataclasses import dataclass

DEVICES = tuple(2**k for k in range(11))


@dataclass(frozen=True)
class Link:
    """A link between devices: bytes per second and seconds per message."""

    name: str
    bandwidth: float
    latency: float


LINKS = (
    Link("10 Gbit/s Ethernet", 1.25e9, 50e-6),
    Link("100 Gbit/s Ethernet", 12.5e9, 10e-6),
    Link("400 Gbit/s InfiniBand", 50e9, 3e-6),
)


def sent_by_each(gradient: float, devices: int) -> float:
    """Bytes that each device sends for one mean over devices."""
    return 2 * (devices - 1) / devices * gradient


def mean_seconds(gradient: float, devices: int, link: Link) -> float:
    """Time of one mean over devices."""
    return sent_by_each(gradient, devices) / link.bandwidth + 2 * (devices - 1) * link.latency


def step_seconds(tasks: int, task_seconds: float, gradient: float, devices: int, link: Link) -> float:
    """Time of one meta-step."""
    return math.ceil(tasks / devices) * task_seconds + mean_seconds(gradient, devices, link)


def efficiency(tasks: int, task_seconds: float, gradient: float, devices: int, link: Link) -> float:
    """The share of the devices' total time that they spend on tasks."""
    return tasks * task_seconds / devices / step_seconds(tasks, task_seconds, gradient, devices, link)
