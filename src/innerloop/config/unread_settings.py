"""Settings without effect on a run: its data, network or algorithm do not read them."""

from collections.abc import Container
from dataclasses import fields

from innerloop.config.data_settings import unread_error
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config
from innerloop.config.specs import NETWORKS, SETTINGS
from innerloop.errors import InnerloopError


def check_effective(config: Config, given: Container[str] = ()) -> None:
    """Raise InnerloopError for a setting of a new run that has no effect.

    Args:
        config: the settings of the run. Without effect, a setting may keep its default, or the value of the preset that
            the config is based on.
        given: names of settings, such as `model.filters`, that the user gave: they must have an effect, whatever their
            values.
    """
    for field in fields(config.data):
        name, settings = field.name, ("dataset", *config.data.spec.settings)
        if f"data.{name}" in given and name not in settings:
            raise unread_error(config.data, name)
    bases = (Config(), all_presets().get(config.name, Config()))
    for setting, reason in _without_effect(config).items():
        section, _, name = setting.partition(".")
        value, *usual = (getattr(getattr(base, section), name) for base in (config, *bases))
        if setting in given or value not in usual:
            raise InnerloopError(setting, reason, got=value, hint="leave it out")
    _check_minibatches(config)


def _check_minibatches(config: Config) -> None:
    """Raise InnerloopError for a minibatch that is larger than the support set."""
    data = config.data
    if config.reinforcement:
        return
    ways = data.ways if data.spec.kind == "images" else 1
    for section, shots in (("inner", data.training_shots), ("evaluation", data.shots)):
        size = getattr(config, section).minibatch
        if (size or 0) > shots * ways:
            wrong = f"must be at most the size of the support set, {shots * ways}"
            raise InnerloopError(f"{section}.minibatch", wrong, got=size, hint="lower it")


def _without_effect(config: Config) -> dict[str, str]:
    """Why a setting has no effect, by its name."""
    data, model, spec = config.data, config.model, config.spec
    others = [names for kind, names in NETWORKS.items() if kind != model.kind]
    found = {
        f"model.{name}": f"the network `{model.kind}` does not read it" for names in others for name in names
    }
    found |= {f"inner.{name}": f"{spec.title} does not use it" for name in SETTINGS.difference(spec.settings)}
    if not model.normalizes:
        found["evaluation.normalization"] = "the network has no batch normalisation"
    if not data.rotations:
        found["evaluation.rotations"] = "classes are not rotated in training either"
    if config.reinforcement:
        whole = "an inner step of a policy reads all of its trajectories"
        found |= {"inner.minibatch": whole, "evaluation.minibatch": whole}
        found["evaluation.queries"] = "policies have no queries"
    return found
