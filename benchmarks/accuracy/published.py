"""Published numbers to compare ours with, and their sources. Accuracy in %, error as mean squared error."""

from typing import Any

MAML = "Finn et al. 2017, table 1"
REPTILE = "Nichol et al. 2018"
ANIL = "Raghu et al. 2020"
CLOSED_FORM = "Bertinetto et al. 2019"
LEARN2LEARN = "learn2learn's documentation, 32 filters"

ACCURACY: dict[tuple[str, str], tuple[str, str]] = {
    ("omniglot-5way-1shot-maml", "transductive"): ("98.7 ± 0.4", MAML),
    ("omniglot-5way-1shot-maml-short", "transductive"): ("98.7 ± 0.4", MAML),
    ("omniglot-5way-1shot-fomaml", "transductive"): ("98.3 ± 0.5", REPTILE),
    ("omniglot-5way-1shot-reptile", "transductive"): ("97.68 ± 0.04", REPTILE),
    ("omniglot-5way-1shot-reptile", "inductive"): ("95.39 ± 0.09", REPTILE),
    ("omniglot-5way-5shot-maml", "transductive"): ("99.9 ± 0.1", MAML),
    ("omniglot-20way-1shot-maml", "transductive"): ("95.8 ± 0.3", f"{MAML}; 93.7 ± 0.7 in {ANIL}"),
    ("omniglot-20way-1shot-anil", "transductive"): ("96.2 ± 0.5", ANIL),
    ("cifar-fs-5way-1shot-maml", "transductive"): ("58.9 ± 1.9", CLOSED_FORM),
    ("cifar-fs-5way-5shot-maml", "transductive"): ("73.6", f"{LEARN2LEARN}; 71.5 ± 1.0 in {CLOSED_FORM}"),
    ("cifar-fs-5way-5shot-anil", "transductive"): ("68.3", LEARN2LEARN),
}
"""By subject and normalisation. Of the shipped models, 5-way 1-shot ANIL on Omniglot and CIFAR-FS has none."""


def published_accuracy(subject: str, record: dict[str, Any]) -> tuple[str, str]:
    """The published number and its source; empty if there is none for this measurement.

    The number does not depend on how long ours trained. Reptile's are for upright test classes, MAML's for rotated
    ones.
    """
    if "reptile" in subject and record.get("rotations"):
        return "", ""
    name = subject.removesuffix("-paper-length").removesuffix("-published")
    return ACCURACY.get((name, record["normalization"]), ("", ""))


SINUSOID_5_SHOT: dict[str, tuple[str, str, str]] = {
    "sinusoid-maml": ("0.67", "0.38", "0.35"),
    "sinusoid-joint": ("2.41", "2.23", "2.19"),
}
"""Error after 1, 5 and 10 steps (Finn et al. 2017, table 2)."""

NAVIGATION: dict[str, tuple[str, str, str, str]] = {
    "navigation-maml-trpo": ("-40.4 ± 4.0", "-11.7 ± 2.2", "-3.3 ± 0.6", "-3.2 ± 0.6"),
    "navigation-pretrained": ("-40.8", "-19.7", "-11.7", "-8.5"),
    "navigation-random": ("-82.7", "-58.0", "-53.8", "-46.8"),
    "navigation-oracle": ("-2.3", "", "", ""),
}
"""Returns after 0 to 3 updates over 40 goals (Finn et al. 2017, tables 4 and 5, and files in its published code)."""

LOCOMOTION: dict[str, tuple[str, str, str, str]] = {
    "half-cheetah-direction-maml-trpo": ("-50.7 ± 5.7", "293.2 ± 17.0", "313.5 ± 15.8", "315.7 ± 13.8"),
    "half-cheetah-velocity-maml-trpo": ("-129.5 ± 16.5", "-78.6 ± 9.9", "-66.6 ± 8.9", "-60.8 ± 8.6"),
    "ant-direction-maml-trpo": ("8.7 ± 14.2", "499.1 ± 32.1", "500.7 ± 31.5", "499.1 ± 32.5"),
    "ant-velocity-maml-trpo": ("30.6 ± 30.0", "96.7 ± 20.7", "100.1 ± 21.5", "101.4 ± 21.0"),
}
PUBLISHED_ITERATIONS = {
    "half-cheetah-direction-maml-trpo": 100,
    "half-cheetah-velocity-maml-trpo": 475,
    "ant-direction-maml-trpo": 575,
    "ant-velocity-maml-trpo": 375,
}
"""The same over 40 tasks, and the meta-iteration of the policy."""
