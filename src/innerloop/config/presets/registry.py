"""Every paper protocol by name, as `DATA-WAYway-SHOTshot-ALGORITHM`, `sinusoid-ALGORITHM`, `navigation-...` or
`BODY-GOAL-ALGORITHM-trpo`; `pictures-...` for the user's own images and `table-...` for the user's own table.

Tasks, networks and inner loops are those of the papers and their published code; inner step sizes are for a loss that
is a mean over examples (MAML's code sums per-class means, so its 0.4 for 5 ways is 2.0 here). For images, training is
shorter than in the papers and the step size decays to 0; `...-published` has all published settings and
`...-paper-length` only the published length of training (`innerloop.config.presets.published`). Some presets use our
own recipes (`innerloop.config.presets.recipes`); `...-short` is then the same without the recipe. CIFAR-FS and FC100
use MAML's protocol for mini-ImageNet. On Omniglot, the inner step size of first-order MAML is ours, as no paper gives
one.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from innerloop.config.presets.images import images, images_pretrained, images_reptile, own_images
from innerloop.config.presets.published import PAPER_LENGTH, PUBLISHED, paper_length
from innerloop.config.presets.recipes import RECIPES
from innerloop.config.presets.reinforcement import locomotion_presets, navigation_presets
from innerloop.config.presets.relatives import RELATIVES, cavia, maml_plus_plus, meta_sgd
from innerloop.config.presets.sinusoid import sinusoid, sinusoid_reptile
from innerloop.config.presets.table import table
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError, did_you_mean


@cache
def all_presets() -> Mapping[str, Config]:
    """Every preset by name."""
    found = {f"sinusoid-{a}": sinusoid(a) for a in ("maml", "fomaml", "anil", "boil", "joint")}
    found["sinusoid-reptile"] = sinusoid_reptile()
    for name, relative in {"cavia": cavia, "meta-sgd": meta_sgd, "maml-plus-plus": maml_plus_plus}.items():
        found[f"sinusoid-{name}"] = relative(found["sinusoid-maml"])
    joint = found["sinusoid-joint"]
    found["sinusoid-oracle"] = replace(joint, data=replace(joint.data, oracle=True))
    settings = [("omniglot", 5, 1), ("omniglot", 5, 5), ("omniglot", 20, 1), ("omniglot", 20, 5)]
    settings += [("glyphs", 5, 1), ("glyphs", 5, 5)]
    settings += [(d, 5, shots) for d in ("cifar_fs", "fc100", "mini_imagenet") for shots in (1, 5)]
    for dataset, ways, shots in settings:
        stem = f"{dataset.replace('_', '-')}-{ways}way-{shots}shot"
        for algorithm in ("maml", "fomaml", "anil", "boil"):
            found[f"{stem}-{algorithm}"] = images(dataset, ways, shots, algorithm)
        for name, relative in RELATIVES.items():
            found[f"{stem}-{name}"] = relative(found[f"{stem}-maml"])
        found[f"{stem}-reptile"] = images_reptile(dataset, ways, shots)
        found[f"{stem}-joint"] = images_pretrained(dataset, ways, shots)
    found |= {f"{name}-published": complete(found[name]) for name, complete in PUBLISHED.items()}
    found |= {f"{name}-paper-length": paper_length(found[name]) for name in PAPER_LENGTH}
    for shots in (1, 5):
        for algorithm in ("maml", "anil"):
            found[f"pictures-5way-{shots}shot-{algorithm}"] = own_images(shots, algorithm)
    found |= {f"table-{algorithm}": table(algorithm) for algorithm in ("maml", "anil", "joint")}
    for name, recipe in RECIPES.items():
        found[f"{name}-short"] = found[name]
        found[name] = recipe(found[name])
    found |= navigation_presets() | locomotion_presets()
    return MappingProxyType({name: replace(config, name=name) for name, config in found.items()})


def preset(name: str) -> Config:
    """The preset of this name. Raises InnerloopError for an unknown name, with the closest ones."""
    known = all_presets()
    if isinstance(name, str) and name in known:
        return known[name]
    raise InnerloopError("preset", "unknown preset", got=repr(name), hint=nearest(str(name)))


def nearest(name: str) -> str:
    """A hint about an unknown name: the presets with similar names."""
    return did_you_mean(name, all_presets(), "`innerloop list` lists the presets", most=3, cutoff=0.4)
