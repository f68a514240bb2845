"""What a meta-step costs on n devices, on paper.

    T(n) = ceil(B / n) t  +  2 (n - 1) / n  G / w  +  2 (n - 1) l

B tasks of t seconds each; G bytes of gradient; a link of w bytes and l seconds. The first term is the tasks of the
device that has most; the others are the mean over devices, in which each device sends 2 (n - 1) messages of G / n bytes
one after the other, as in a ring all-reduce.

Assumed: devices alike; one link for every device, all usable at once; no overlap of computing and sending; tasks of
equal length; nothing read or written. Messages one after the other is the slow end: a tree would pay log n latencies.
"""

import math
from dataclasses import dataclass

DEVICES = tuple(2**k for k in range(11))


@dataclass(frozen=True)
class Link:
    """What connects the devices: bytes per second and seconds per message."""

    name: str
    bandwidth: float
    latency: float


LINKS = (
    Link("10 Gbit/s Ethernet", 1.25e9, 50e-6),
    Link("100 Gbit/s Ethernet", 12.5e9, 10e-6),
    Link("400 Gbit/s InfiniBand", 50e9, 3e-6),
)


def sent_by_each(gradient: float, devices: int) -> float:
    """Bytes that each device sends for one mean."""
    return 2 * (devices - 1) / devices * gradient


def mean_seconds(gradient: float, devices: int, link: Link) -> float:
    """Time of one mean over devices."""
    return sent_by_each(gradient, devices) / link.bandwidth + 2 * (devices - 1) * link.latency


def step_seconds(tasks: int, task_seconds: float, gradient: float, devices: int, link: Link) -> float:
    """Time of one meta-step."""
    return math.ceil(tasks / devices) * task_seconds + mean_seconds(gradient, devices, link)


def efficiency(tasks: int, task_seconds: float, gradient: float, devices: int, link: Link) -> float:
    """The part of all devices' time that goes into tasks."""
    return tasks * task_seconds / devices / step_seconds(tasks, task_seconds, gradient, devices, link)
