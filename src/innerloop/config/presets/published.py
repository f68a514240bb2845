"""Published protocols with all their settings, including the length of training: `...-published`.

They cover only what is documented in full: MAML on Omniglot and mini-ImageNet (Finn et al. 2017, section 5.2 and
appendix A.1, and the published code), and Reptile on Omniglot (Nichol et al. 2018, the commands of the published code).
Other differences are listed in the documentation under *Differences from the papers*.

`...-paper-length` trains for MAML's 60 000 meta-steps, even where the papers do not document everything (ANIL,
CIFAR-FS), with the settings of the preset without its recipe: from random weights, with a constant outer step size.
"""

from dataclasses import replace

from innerloop.config.schema import Config


def paper_length(base: Config) -> Config:
    """MAML's 60 000 meta-steps, with a constant outer step size."""
    return replace(base, outer=replace(base.outer, meta_steps=60_000, decay="constant"))


def published_maml(base: Config) -> Config:
    """As `paper_length`, with as many queries per class at test as shots."""
    return replace(paper_length(base), evaluation=replace(base.evaluation, queries=base.data.shots))


def published_reptile(base: Config) -> Config:
    """100 000 meta-steps for 5-way tasks, 200 000 for 20-way tasks."""
    return replace(base, outer=replace(base.outer, meta_steps=100_000 if base.data.ways == 5 else 200_000))


PUBLISHED = {
    **{f"omniglot-{n}way-{k}shot-maml": published_maml for n in (5, 20) for k in (1, 5)},
    **{f"mini-imagenet-5way-{k}shot-{a}": published_maml for k in (1, 5) for a in ("maml", "fomaml")},
    **{f"omniglot-{n}way-{k}shot-reptile": published_reptile for n in (5, 20) for k in (1, 5)},
}
"""By preset name: the function from the protocol with our shorter training to the full one."""

PAPER_LENGTH = tuple(
    f"{data}-{algorithm}"
    for data in (
        "omniglot-5way-1shot",
        "omniglot-5way-5shot",
        "omniglot-20way-1shot",
        "cifar-fs-5way-1shot",
        "cifar-fs-5way-5shot",
        "mini-imagenet-5way-1shot",
        "mini-imagenet-5way-5shot",
    )
    for algorithm in ("maml", "fomaml", "anil")
)
"""The presets that are compared with published numbers, and so also exist with the papers' length of training."""
