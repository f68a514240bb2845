"""What scikit-learn requires of an estimator besides `fit`, `predict` and `score`: settings, tags and copies.

    Pipeline([("scale", StandardScaler()), ("learn", learner)]);  cross_val_score(learner, x, y)
    GridSearchCV(learner, {"algorithm": [algorithm.with_inner(steps=n) for n in (1, 5, 10)]})

Only callers that use scikit-learn import it; the library does not need it.
"""

import pickle
import sys
from collections.abc import Callable
from functools import cache, update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

import jax

from innerloop.engine.algorithm import Algorithm, described
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.text import counted
from innerloop.learner import pickling

if TYPE_CHECKING:
    import sklearn.utils

SETTINGS = ("params", "algorithm", "classification", "normalization", "shape", "pixels")
"""The arguments of a learner."""

FITTED = frozenset({"params_", "losses_", "classes_", "support_", "target_shape_", "numbers_"})
"""The attributes that `fit` sets. All others are settings, which `fit` leaves alone."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def not_fitted() -> type[InnerloopError]:
    """The error class for a learner that is not fitted: also scikit-learn's, if that library is in use."""
    exceptions = sys.modules.get("sklearn.exceptions")
    if exceptions is None:
        return InnerloopError
    return _not_fitted_of(exceptions.NotFittedError)


@cache
def _not_fitted_of(theirs: type[Exception]) -> type[InnerloopError]:
    """A subclass of InnerloopError and of their class; always the same one."""

    def reduced(error: InnerloopError) -> tuple[object, ...]:
        return _restored, (str(error),), InnerloopError.__reduce__(error)[2]

    return type("NotFittedError", (InnerloopError, theirs), {"__module__": __name__, "__reduce__": reduced})


def _restored(message: str) -> InnerloopError:
    """The unpickled error, with the class that fits this process, where scikit-learn may not be in use."""
    cls = not_fitted()
    return cls.__new__(cls, message)


class NoSuchMethod(InnerloopError, AttributeError):
    """Raised for a method that this kind of learner lacks, so that `hasattr` is False."""


class ClassifierOnly(Generic[Arguments, Result]):
    """A method that only classifiers have."""

    def __init__(self, method: Callable[Concatenate[Any, Arguments], Result]):
        self.method = method
        update_wrapper(self, method)  # pyright: ignore[reportArgumentType]

    def __get__(self, learner: "Estimator", owner: type | None = None) -> Callable[Arguments, Result]:
        if learner is None:
            return self.method
        if not learner.classification:
            name = self.method.__name__
            raise NoSuchMethod(f"Learner.{name}", "a regressor has no probabilities", hint="use predict")
        return MethodType(self.method, learner)


def _listed(values: dict[str, object]) -> str:
    """Names and values as in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


Kind = TypeVar("Kind", bound="Estimator")


class Estimator:
    """The protocol of scikit-learn's `BaseEstimator`, for a class whose constructor takes `SETTINGS`."""

    params: Params
    algorithm: Algorithm
    classification: bool
    params_: object

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Return the settings by name. `deep` has no effect: no setting is an estimator."""
        return {name: getattr(self, name) for name in SETTINGS}

    def set_params(self: Kind, **settings: object) -> Kind:
        """Change settings and discard the fit. Without settings, nothing changes.

        Args:
            settings: as the constructor takes them.

        Returns:
            The learner itself.

        Raises:
            InnerloopError: for a name that is not a setting, and as the constructor.
        """
        for name in settings:
            check_choice("Learner.set_params", "setting", name, SETTINGS)
        if not settings:
            return self
        fresh = type(self)(**self.get_params() | settings)
        vars(self).clear()
        vars(self).update(vars(fresh))
        return self

    def __setattr__(self, name: str, value: object) -> None:
        if name not in FITTED and not name.startswith("_"):  # scikit-learn sets private attributes itself
            hint = (
                "call set_params, or make a new Learner; `algorithm.with_inner(...)` changes the inner loop"
            )
            raise InnerloopError("Learner", f"`{name}` cannot be set", hint=hint)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        size = sum(x.size for x in jax.tree.leaves(self.params))
        how = described(self.algorithm)
        algorithm = f"<{how.pop('algorithm')}: {_listed(how)}>"
        shown = {"params": f"<{counted(size, 'number')}>", "algorithm": algorithm}
        rest = {name: value for name, value in self.get_params().items() if name not in shown}
        return f"{type(self).__name__}({', '.join(f'{n}={v}' for n, v in shown.items())}, {_listed(rest)})"

    def __reduce__(self) -> tuple[Callable[..., "Estimator"], tuple[type["Estimator"], bytes]]:
        return _unpickled, (type(self), pickling.dumps(vars(self)))

    def __copy__(self: Kind) -> Kind:
        return _with_attributes(type(self), vars(self))

    def __deepcopy__(self: Kind, memo: object) -> Kind:
        return _with_attributes(type(self), vars(self))  # its arrays are never changed in place

    def __sklearn_clone__(self: Kind) -> Kind:
        """An unfitted learner with the same settings; arrays are shared, since they are never changed."""
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


def _with_attributes(cls: type[Kind], attributes: dict[str, object]) -> Kind:
    """An estimator with these attributes."""
    estimator = object.__new__(cls)
    vars(estimator).update(attributes)
    return estimator


def _unpickled(cls: type[Kind], data: bytes) -> Kind:
    """The unpickled estimator."""
    return _with_attributes(cls, pickle.loads(data))
