"""Few-shot image classification, with the papers' protocols."""

from dataclasses import replace

from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
)
from innerloop.config.specs import ALGORITHMS, DATASETS

OMNIGLOT = ModelConfig(kind="conv4", filters=64, downsample="stride", features="mean")
POOLED = ModelConfig(kind="conv4", filters=32, downsample="pool", features="flatten")


def images(dataset: str, ways: int, shots: int, algorithm: str) -> Config:
    """MAML's image protocols (section 5.2, appendix A.1) for all algorithms except Reptile."""
    spec = DATASETS[dataset]
    if spec.drawings:
        steps, test_steps, meta_batch = (1, 3, 32) if ways == 5 else (5, 5, 16)
        inner = InnerConfig(steps=steps, learning_rate=2.0)
        outer = OuterConfig(meta_steps=15_000, meta_batch=meta_batch, decay="cosine")
        if not ALGORITHMS[algorithm].second_order:  # 2.0 is too large without second-order terms
            inner = replace(inner, learning_rate=0.5)
        queries = shots
    else:
        inner, test_steps = InnerConfig(steps=5, learning_rate=0.05), 10
        outer = OuterConfig(meta_steps=10_000, meta_batch=4, decay="cosine", clip=10.0)
        queries = 15
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset=dataset, ways=ways, shots=shots, queries=queries, rotations=spec.rotations),
        model=OMNIGLOT if spec.drawings else POOLED,
        inner=inner,
        outer=outer,
        evaluation=EvaluationConfig(steps=test_steps, queries=queries),
    )


def own_images(shots: int, algorithm: str) -> Config:
    """The user's own image folder, 5-way, on a laptop: 32 x 32 images, a small network, minutes of training."""
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset="folder", ways=5, shots=shots, queries=5, size=32),
        model=replace(POOLED, downsample="stride"),
        inner=InnerConfig(steps=3, learning_rate=0.1),
        outer=OuterConfig(
            meta_steps=2000,
            meta_batch=4,
            learning_rate=0.002,
            decay="cosine",
            clip=10.0,
            log_every=50,
            validate_every=250,
            checkpoint_every=250,
        ),
        evaluation=EvaluationConfig(tasks=1000, steps=10, queries=5, validation_tasks=100),
    )


def images_reptile(dataset: str, ways: int, shots: int) -> Config:
    """Reptile's image protocols (published commands): persistent inner Adam, 5 tasks, outer step 1 decaying to 0.

    On Omniglot, its code rotates only the training drawings.
    """
    spec = DATASETS[dataset]
    if spec.drawings:
        rate, batch, steps, train_shots = (0.001, 10, 5, 10) if ways == 5 else (0.0005, 20, 10, 10)
    else:
        rate, batch, steps, train_shots = 0.001, 10, 8, 15
    test_batch = 10 if ways == 20 else 5 if spec.drawings or shots == 1 else 15
    return Config(
        algorithm="reptile",
        data=DataConfig(
            dataset=dataset, ways=ways, shots=shots, train_shots=train_shots, rotations=spec.rotations
        ),
        model=replace(OMNIGLOT if spec.drawings else POOLED, features="flatten"),
        inner=InnerConfig(steps=steps, learning_rate=rate, optimizer="persistent_adam", minibatch=batch),
        outer=OuterConfig(
            meta_steps=40_000, meta_batch=5, learning_rate=1.0, optimizer="sgd", decay="linear"
        ),
        evaluation=EvaluationConfig(steps=50, minibatch=test_batch, queries=1, rotations=not spec.rotations),
    )


def images_pretrained(dataset: str, ways: int, shots: int) -> Config:
    """The pre-trained baseline: classify all training classes, then fine-tune body and new head on each task."""
    like = images(dataset, ways, shots, "joint")
    return replace(
        like,
        data=replace(like.data, queries=64 // ways),
        inner=InnerConfig(steps=1, learning_rate=0.1),
        outer=replace(like.outer, meta_steps=4000, meta_batch=1),
        evaluation=replace(like.evaluation, steps=20),
    )
