"""The computation behind `innerloop export`: preprocessing of the user's raw inputs in front of the adapted network."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from innerloop.cli.adapt_table import Rows, fit_rows
from innerloop.cli.user_examples import UserData, class_files
from innerloop.cli.user_fit import Start, fit_pictures, fit_points, refuse_pictures
from innerloop.config.schema import ExportFormat
from innerloop.io.untrusted import JsonObject
from innerloop.learner.exporting.formats import Samples, export, format_of
from innerloop.learner.exporting.network import INPUT, Network
from innerloop.learner.samples import samples_of
from innerloop.tasks.tables.preparation import Category, Number, read
from innerloop.tasks.tables.traced import encoded, restored


def write(
    start: Start, own: UserData, path: Path, format: ExportFormat | None, *, overwrite: bool
) -> JsonObject:
    """Fit the learner to the user's examples, write the network, and return a plain record of what the file holds.

    Without a format it follows from the file's name. Raises InnerloopError if the examples do not fit the model, and
    as `Learner.export`.
    """
    write_network = partial(export, start.learner, path, format, overwrite=overwrite)
    columns = None
    if start.config.data.spec.needs_file:
        network, columns = _table(start, own, write_network)
    elif start.learner.classification:
        network = _pictures(start, own, write_network)
    else:
        fit_points(start, own, require_queries=False)
        network = write_network()
    about = {"source": start.source, "preset": start.config.name, "steps": start.learner.n_steps}
    about |= {"file": str(path), "format": format_of(path, format)}
    about |= {"examples": len(start.learner.support_), "normalization": network.normalization}
    about |= {"holds_examples": network.holds_examples}
    return about | _ends(network, *(columns or ([], network.classes)))


def _ends(network: Network, inputs: list[str], outputs: list[object] | None) -> JsonObject:
    """Names, types and shapes of the input and the output."""
    result = jax.eval_shape(network.function, jax.ShapeDtypeStruct((1, *network.shape), network.dtype))
    shape = lambda sides: ["batch", *sides]
    given = {"name": INPUT, "dtype": network.dtype, "shape": shape(network.shape), "columns": inputs}
    found = {"name": network.output, "dtype": str(result.dtype), "shape": shape(result.shape[1:])}
    return {"input": given, "output": found | {"columns": outputs or []}}


def _pictures(start: Start, own: UserData, write_network: Callable[..., Network]) -> Network:
    """Pictures as bytes; drawings that are dark on light are inverted by the network."""
    files = class_files(_class_folders(own.data), start.config.data.ways, "--support")
    picture_format = fit_pictures(start, files, own.ink)
    invert = (lambda x: 255 - x) if picture_format.ink == "dark" else None
    pictures = samples_of(start.learner)
    inputs = pictures if invert is None else 255 - pictures
    return write_network(before=invert, samples=Samples(inputs, pictures))


def _class_folders(data: Path) -> Path:
    """The folder that holds the class folders: `data` itself, or `support` inside it, as for `adapt`.

    A class may be called `support`; its folder then holds pictures, next to classes other than `query`.
    """
    inside = data / "support"
    if not inside.is_dir():
        return data
    folders = lambda place: {f.name for f in place.iterdir() if f.is_dir() and not f.name.startswith(".")}
    return inside if folders(inside) or folders(data) <= {"support", "query"} else data


def _table(
    start: Start, own: UserData, write_network: Callable[..., Network]
) -> tuple[Network, tuple[list[str], list[object]]]:
    """Rows in the units of the table, and their columns."""
    refuse_pictures(own, "a table", "give a CSV or Parquet file with the columns of the table")
    rows = fit_rows(start, own.data, require_queries=False)
    preparation = rows.preparation
    network = write_network(
        before=lambda rows: encoded(preparation, rows),
        after=lambda values: restored(preparation, values),
        shape=(len(preparation.x),),
        samples=_samples(rows),
    )
    return network, ([_described(c) for c in preparation.x], [c.name for c in preparation.y])


def _samples(rows: Rows) -> Samples:
    """Some rows of the new group, as the file takes them (in the table's units) and as the model takes them."""
    kinds = rows.preparation.x
    columns = read(rows.chosen(np.flatnonzero(~rows.asked)[:8]), kinds)
    numbers = [
        column.values.astype(np.float32)
        if isinstance(kind, Number)
        else kind.codes(column).astype(np.float32)
        for kind, column in zip(kinds, columns, strict=True)
    ]
    frame = {
        kind.name: values.astype(np.float64) if isinstance(kind, Number) else column.values
        for kind, column, values in zip(kinds, columns, numbers, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit has already warned about unseen categories
        return Samples(np.stack(numbers, axis=1), rows.preparation.inputs(frame))


def _described(column: Number | Category) -> str:
    """A column of x as the file takes it."""
    if isinstance(column, Number):
        return column.name
    return f"{column.name} ({', '.join(f'{level} = {i}' for i, level in enumerate(column.levels))})"
