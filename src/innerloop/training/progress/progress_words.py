"""The progress of a run, in words."""

import math

from innerloop.io.text import counted, printable
from innerloop.training.progress.progress import Progress


def speed(progress: Progress) -> str:
    """The speed of the run; empty until it is known."""
    if math.isnan(progress.tasks_per_second):
        return ""
    speed = f"{progress.tasks_per_second:,.0f} tasks/s  "
    if progress.environment_steps_per_second:
        speed = f"{progress.environment_steps_per_second:,.0f} environment steps/s  "
    return speed.replace(",", " ")


def in_words(metrics: dict[str, float]) -> str:
    """The main metrics in words: outer loss or returns, other training metrics, and the validation score."""
    words = [f"outer loss {metrics['outer_loss']:.4f}"] if "outer_loss" in metrics else []
    words += [_of_training(name, value) for name, value in metrics.items() if name.startswith("train_")]
    returns = [name for name in metrics if name.startswith("return_after_")]
    returns.sort(key=lambda name: (len(name), name))  # 10 comes after 9
    if returns:
        words = ["return " + " → ".join(f"{metrics[name]:.1f}" for name in returns)]
    words += _of_validation(metrics)
    if lost := round(metrics.get("validation_diverged", 0)):
        words[-1] += f" ({counted(lost, 'task')} diverged)"
    return "  ".join(words)


def _of_validation(metrics: dict[str, float]) -> list[str]:
    """The validation score: a known one, or else all scores."""
    if "validation_return" in metrics:
        return [f"validation return {metrics['validation_return']:.1f}"]
    if "validation_accuracy" in metrics:
        return [f"validation accuracy {100 * metrics['validation_accuracy']:.1f} %"]
    if "validation_loss" in metrics:
        return [f"validation loss {metrics['validation_loss']:.4f}"]
    own = {name: x for name, x in metrics.items() if name.startswith("validation_")}
    own.pop("validation_diverged", None)
    return [_plain("validation", name, value) for name, value in own.items()]


def _of_training(name: str, value: float) -> str:
    """An auxiliary output of the loss in words, such as `training accuracy 61.2 %`."""
    return (
        f"training accuracy {100 * value:.1f} %"
        if name == "train_accuracy"
        else _plain("training", name, value)
    )


def _plain(kind: str, name: str, value: float) -> str:
    """A metric with its name, without the prefix."""
    return printable(f"{kind} {name.partition('_')[2].replace('_', ' ')} {value:.4g}", 80)


def left(done: int, total: int, seconds: float) -> str:
    """The time left; `done` if nothing is left."""
    if done >= total:
        return "done"
    return "estimating the time left" if math.isnan(seconds) else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds as `less than 1 s`, `42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 1:
        return "less than 1 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
