"""What scikit-learn asks of an estimator beside `fit`, `predict` and `score`: settings, tags and copies.

    Pipeline([("scale", StandardScaler()), ("learn", learner)]);  cross_val_score(learner, x, y)
    GridSearchCV(learner, {"algorithm": [algorithm.with_inner(steps=n) for n in (1, 5, 10)]})

scikit-learn is imported by those that call it alone; the library does not need it.
"""

import sys
from collections.abc import Callable
from functools import cache, update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

import jax

from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    import sklearn.utils

SETTINGS = ("params", "algorithm", "classification", "normalization", "shape", "pixels")
"""The arguments of a learner."""


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def not_fitted() -> type[InnerloopError]:
    """The error of a learner that was not fitted: also scikit-learn's, where that library is in use."""
    exceptions = sys.modules.get("sklearn.exceptions")
    if exceptions is None:
        return InnerloopError
    return _not_fitted_of(exceptions.NotFittedError)


@cache
def _not_fitted_of(theirs: type[Exception]) -> type[InnerloopError]:
    """An InnerloopError that is theirs too; always the same class."""

    def reduced(error: InnerloopError) -> tuple[object, ...]:
        restore, (_, *rest) = InnerloopError.__reduce__(error)
        return _restored, (restore, *rest)

    return type("NotFittedError", (InnerloopError, theirs), {"__module__": __name__, "__reduce__": reduced})


def _restored(restore: Callable[..., InnerloopError], *rest: object) -> InnerloopError:
    """The error that was pickled, as a class of this process, where scikit-learn may not be in use."""
    return restore(not_fitted(), *rest)


class NoSuchMethod(InnerloopError, AttributeError):
    """What a learner of this kind has not; `hasattr` says no."""


class OfClassifiers(Generic[Arguments, Result]):
    """A method that regressors lack."""

    def __init__(self, method: Callable[Concatenate[Any, Arguments], Result]):
        self.method = method
        update_wrapper(self, method)  # pyright: ignore[reportArgumentType]

    def __get__(self, learner: "Estimator", owner: type | None = None) -> Callable[Arguments, Result]:
        if learner is None:
            return self.method
        if not learner.classification:
            name = self.method.__name__
            raise NoSuchMethod(f"Learner.{name}", "a regressor has no probabilities", do="use predict")
        return MethodType(self.method, learner)


Kind = TypeVar("Kind", bound="Estimator")


class Estimator:
    """The protocol of scikit-learn's `BaseEstimator`, for a class whose constructor takes `SETTINGS`."""

    classification: bool
    params_: object

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """The settings, by name. There is nothing deeper: no setting is an estimator."""
        return {name: getattr(self, name) for name in SETTINGS}

    def set_params(self: Kind, **settings: object) -> Kind:
        """Change settings; what was fitted is forgotten. Without settings, nothing changes.

        Args:
            settings: as the constructor takes them.

        Returns:
            The learner itself.

        Raises:
            InnerloopError: for a name that is no setting, and as the constructor.
        """
        for name in settings:
            if name not in SETTINGS:
                do = "choose among: " + ", ".join(SETTINGS)
                raise InnerloopError("Learner.set_params", "there is no such setting", got=repr(name), do=do)
        if not settings:
            return self
        fresh = type(self)(**self.get_params() | settings)
        vars(self).clear()
        vars(self).update(vars(fresh))
        return self

    def __repr__(self) -> str:
        settings = self.get_params()
        size = sum(x.size for x in jax.tree.leaves(settings.pop("params")))
        algorithm = type(settings.pop("algorithm")).__name__
        rest = "".join(f", {name}={value!r}" for name, value in settings.items())
        return f"{type(self).__name__}(params=<{size} numbers>, algorithm=<{algorithm}>{rest})"

    def __sklearn_clone__(self: Kind) -> Kind:
        """A learner with the same settings that was never fitted; arrays are shared, as none is ever changed."""
        return type(self)(**self.get_params())

    def __sklearn_is_fitted__(self) -> bool:
        return self.params_ is not None

    def __sklearn_tags__(self) -> "sklearn.utils.Tags":
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        classifier = self.classification
        return Tags(
            estimator_type="classifier" if classifier else "regressor",
            target_tags=TargetTags(required=True, multi_output=not classifier),
            classifier_tags=ClassifierTags() if classifier else None,
            regressor_tags=None if classifier else RegressorTags(),
            input_tags=InputTags(three_d_array=True),
        )
