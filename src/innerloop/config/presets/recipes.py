"""Our own recipes for presets whose published training is long; `...-short` is the preset without its recipe.

They change how the initialisation is trained, the network's head, and the number and size of inner steps. Tasks,
classes and the rest of the measurement are as in the papers.
"""

from collections.abc import Callable
from dataclasses import replace

from innerloop.config.schema import Config


def flattened_head(base: Config) -> Config:
    """MAML on Omniglot 5-way: the head reads all positions of the last block, so that one step of it achieves more.

    The step size of 0.4 is for a mean loss, not a sum over classes. This learns faster, and at test it is enough to
    adapt the head (feature reuse).
    """
    outer = replace(base.outer, meta_steps=18_000, meta_batch=16, learning_rate=0.002)
    return replace(
        base,
        model=replace(base.model, features="flatten"),
        inner=replace(base.inner, learning_rate=0.4),
        outer=outer,
        evaluation=replace(base.evaluation, steps=10),
    )


def from_one_shot_of_omniglot(base: Config) -> Config:
    """MAML on Omniglot with 5 shots: the shipped 1-shot model, including its head, trained a little further."""
    recipe = flattened_head(base)
    return replace(
        recipe,
        model=replace(recipe.model, start="omniglot-5way-1shot-maml"),
        outer=replace(recipe.outer, meta_steps=1200, meta_batch=8, learning_rate=0.0005),
    )


def first_order_longer(base: Config) -> Config:
    """First-order MAML on Omniglot 5-way: half the tasks per meta-step, three times the meta-steps, twice as large."""
    outer = replace(base.outer, meta_steps=45_000, meta_batch=16, learning_rate=0.002)
    return replace(
        base,
        inner=replace(base.inner, learning_rate=0.4),
        outer=outer,
        evaluation=replace(base.evaluation, steps=10),
    )


def from_five_ways(base: Config) -> Config:
    """MAML and ANIL on Omniglot 20-way: the body of the shipped 5-way model, with a zero head.

    Four times as many classes need four times the step size, since the loss is a mean over them.
    """
    outer = replace(base.outer, meta_steps=8000, meta_batch=8, learning_rate=0.002)
    return replace(
        base,
        model=replace(base.model, features="flatten", start="omniglot-5way-1shot-maml"),
        inner=replace(base.inner, steps=1, learning_rate=1.6),
        outer=outer,
    )


def double_inner_lr(base: Config) -> Config:
    """Reptile on Omniglot 5-way: less than half the meta-steps, with inner steps twice as large."""
    return replace(
        base,
        inner=replace(base.inner, learning_rate=0.002),
        outer=replace(base.outer, meta_steps=45_000, validate_every=5000),
    )


def all_classes_longer(base: Config) -> Config:
    """The pre-trained baseline on CIFAR-FS: more and larger outer steps."""
    return replace(base, outer=replace(base.outer, meta_steps=10_000, learning_rate=0.002))


def from_supervised_pretraining(base: Config) -> Config:
    """MAML and ANIL on CIFAR-FS: 8000 meta-steps, starting from the body of the shipped pre-trained baseline."""
    model = replace(base.model, start="cifar-fs-5way-1shot-joint")
    return replace(base, model=model, outer=replace(base.outer, meta_steps=8000))


def from_one_shot(base: Config) -> Config:
    """CIFAR-FS with 5 shots: the algorithm's shipped 1-shot model, including its head, trained a little further."""
    model = replace(base.model, start=f"cifar-fs-5way-1shot-{base.algorithm}")
    outer = replace(base.outer, meta_steps=600, learning_rate=0.0005)
    return replace(base, model=model, outer=outer)


RECIPES: dict[str, Callable[[Config], Config]] = {
    "omniglot-5way-1shot-maml": flattened_head,
    "omniglot-5way-5shot-maml": from_one_shot_of_omniglot,
    "omniglot-5way-1shot-fomaml": first_order_longer,
    "omniglot-5way-5shot-fomaml": first_order_longer,
    "omniglot-5way-1shot-reptile": double_inner_lr,
    "omniglot-5way-5shot-reptile": double_inner_lr,
    "omniglot-20way-1shot-maml": from_five_ways,
    "omniglot-20way-1shot-anil": from_five_ways,
    "cifar-fs-5way-1shot-joint": all_classes_longer,
    "cifar-fs-5way-1shot-maml": from_supervised_pretraining,
    "cifar-fs-5way-1shot-anil": from_supervised_pretraining,
    "cifar-fs-5way-5shot-maml": from_one_shot,
    "cifar-fs-5way-5shot-anil": from_one_shot,
}
"""By preset name: the function from the protocol with our shorter training to the recipe."""
