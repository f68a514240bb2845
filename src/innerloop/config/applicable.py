"""Which settings of a config apply to its tasks, model and algorithm."""

from innerloop.config.schema import Config
from innerloop.config.specs import SETTINGS

CONV4 = ("filters", "downsample", "features")
MLP = ("hidden", "activation", "normalize", "context", "scale")


def applies(config: Config, name: str) -> bool:
    """Whether a setting, named as in `data.shots`, changes anything with this config's tasks, model and algorithm."""
    section, _, field = name.rpartition(".")
    if section == "rl":
        return config.reinforcement
    if section == "data":
        return field in ("dataset", *config.data.spec.settings)
    if section == "model":
        return field not in (MLP if config.model.kind == "conv4" else CONV4)
    if section == "inner":
        return field in config.spec.settings or field not in SETTINGS
    needs = {
        "evaluation.queries": not config.reinforcement,
        "evaluation.rotations": config.data.rotations,
        "evaluation.normalization": config.model.normalizes,
    }
    return needs.get(name, True)
