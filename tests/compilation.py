"""Compilation for tests: quick where it costs more than running, and once per session."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax._src import compiler
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""XLA's options: the older code generator, which compiles in a quarter of the time, and each program in one part."""

HAS_OLDER = jax.__version_info__ < (0, 11)
"""Later releases have neither the older code generator nor its option."""


def quick_variables() -> dict[str, str]:
    """The environment variables with which a subprocess compiles like `compiled_quickly`."""
    options = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()] if HAS_OLDER else []
    flags = " ".join([*os.environ.get("XLA_FLAGS", "").split(), *options])
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | ({"XLA_FLAGS": flags} if flags else {})


def unmeasured() -> dict[str, str]:
    """The environment for a process without coverage, whose tracing makes start-up take half as long again.

    For processes that run code which tests in this process also cover.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def compiling_quickly(get_compile_options: Callable) -> Callable:
    """Wrap JAX's function to add `QUICK` to its options while most optimisations are off.

    JAX has no setting for this, and XLA reads `XLA_FLAGS` only once per process.
    """

    def quicker(*args: object, **settings: object):
        options = get_compile_options(*args, **settings)
        if HAS_OLDER and jax.config.read("jax_disable_most_optimizations"):
            options.env_option_overrides = [*options.env_option_overrides, *QUICK.items()]
        return options

    return quicker


compiler.get_compile_options = compiling_quickly(compiler.get_compile_options)


new_context = mlir.make_ir_context
kept_context = functools.cache(new_context)


def context() -> ir.Context:
    """An MLIR context for lowering a program; the main thread reuses one until `forget_programs`.

    Creating and freeing one takes 12 ms, ten times as long as lowering a small program.
    """
    return kept_context() if threading.current_thread() is threading.main_thread() else new_context()


mlir.make_ir_context = context


def forget_programs() -> None:
    """Free the memory of all programs traced, lowered or compiled so far."""
    jax.clear_caches()
    kept_context.cache_clear()


def compile_for(quick: bool) -> bool:
    """Compile with few optimisations from here on, or with all of them; return the previous setting.

    The mathematics is the same, but rounding differs. JAX caches programs regardless of these options, so every change
    clears the cache.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    if quick != before:
        forget_programs()
        jax.config.update("jax_disable_most_optimizations", quick)
    return before


@contextlib.contextmanager
def compiled_quickly() -> Iterator[None]:
    """Compile quickly in this context, for code that takes longer to compile than to run."""
    before = compile_for(quick=True)
    try:
        yield
    finally:
        compile_for(before)


def kept_in(folder: Path) -> None:
    """Cache compiled programs on disk like the command, for this process and its subprocesses.

    Programs that compile in less than 0.1 s take longer to write than to compile again.
    """
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.1}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
