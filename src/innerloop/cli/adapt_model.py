"""The computation behind `innerloop adapt`: adapt a trained initialisation to the user's examples, predict new ones."""

from pathlib import Path

import numpy as np

from innerloop.cli.adapt_table import predicted_rows
from innerloop.cli.user_examples import UserData, query_files, support_files
from innerloop.cli.user_fit import Start, fit_pictures, fit_points, refuse_pictures
from innerloop.io.untrusted import JsonObject


def adapt_and_predict(start: Start, own: UserData) -> JsonObject:
    """Adapt to the user's examples and predict new ones.

    Args:
        start: a trained initialisation; its learner is fitted.
        own: the user's examples.

    Returns:
        A plain record with the predictions.

    Raises:
        InnerloopError: if the examples do not fit the model.
    """
    if start.config.data.spec.needs_file:
        refuse_pictures(own, "a table", "give a CSV or Parquet file with the columns of the table")
        found = {"predictions": predicted_rows(start, own.data)}
    else:
        found = _classify(start, own) if start.learner.classification else _regress(start, own)
    about = {"source": start.source, "preset": start.config.name, "steps": start.learner.n_steps}
    return about | {"examples": len(start.learner.support_)} | found


def _classify(start: Start, own: UserData) -> JsonObject:
    """Labels and probabilities for the new pictures."""
    learner = start.learner
    files, new = support_files(own.data, start.config.data.ways), query_files(own.data, own.query)
    picture_format = fit_pictures(start, files, own.ink, new)
    chances, classes = learner.predict_proba(picture_format.read(new)), learner.classes_.tolist()
    predictions = [_label_of(path, p, classes) for path, p in zip(new, chances, strict=True)]
    facts = {"normalization": learner.normalization, "ink": picture_format.ink, "classes": classes}
    return facts | {"predictions": predictions}


def _label_of(path: Path, chances: np.ndarray, classes: list[str]) -> JsonObject:
    """The prediction for one new picture."""
    best = int(chances.argmax())
    by_class = {name: round(float(p), 6) for name, p in zip(classes, chances, strict=True)}
    return {
        "file": str(path),
        "label": classes[best],
        "probability": by_class[classes[best]],
        "probabilities": by_class,
    }


def _regress(start: Start, own: UserData) -> JsonObject:
    """Predicted y for the new points."""
    asked = fit_points(start, own, require_queries=True)
    found = start.learner.predict(asked)
    return {
        "predictions": [{"x": float(x), "y": float(y)} for x, y in zip(asked[:, 0], found[:, 0], strict=True)]
    }
