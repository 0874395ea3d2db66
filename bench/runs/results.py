"""Runs from Python: make one, read one, load a trained model, certify many images; results as DataFrames."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.levels import noise_levels
from bench.config.methods import methods as known_methods
from bench.config.names import nearest_hint
from bench.config.overrides import override, user_path
from bench.config.run import RunConfig, list_presets, load_preset, validate, with_radii
from bench.errors import BenchError, UsageError, shown
from bench.methods import registry, zoo as zoos
from bench.records.file import read_run
from bench.report.comparison import Comparison, compare
from bench.runs import runner, single
from bench.runs.progress import Observer
from bench.smoothing.api import Model, smoothed
from bench.smoothing.certifier import Composed, checked_protocol
from bench.smoothing.classifiers import COMPOSES, modes_kept
from bench.smoothing.counting import checked_sigma
from bench.types import Classifier, Protocol, Record, Run

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """A figure as PNG, which notebooks show."""

    name: str
    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {len(self.png):,} bytes); save(path) writes it"

    def save(self, path: Path | str) -> None:
        """Write the PNG file.

        Raises:
            UsageError: no path, or a name that ends in another way; `bench report` writes PDF.
        """
        try:
            file = user_path(path)
        except ValueError as error:
            raise UsageError(f"path: {error}") from error
        if file.suffix.lower() != ".png":
            raise UsageError(
                f"{file} is no name of a PNG file: end it in .png; `bench report RUN` writes PDF"
            )
        file.write_bytes(self.png)


@dataclass(frozen=True, eq=False)
class Results:
    """A finished run; every number comes from its records.

    Attributes:
        run: header, records and costs as they were read.
    """

    run: Run

    @cached_property
    def comparison(self) -> Comparison:
        """The run as tables and figures see it."""
        return compare([self.run])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before the numbers, such as images that are not certified yet; a sentence each."""
        try:
            return (*self.comparison.warnings, *self.comparison.notes) if self.run.records else ()
        except BenchError as error:  # of methods that have no image in common yet
            return (f"{error}.",)

    def certified_accuracy(self) -> pd.DataFrame:
        """Return certified accuracy, one row per method, sigma and radius; the columns are those of the CSV file."""
        from bench.report.tables.accuracy import accuracy_frame

        return accuracy_frame(self.comparison).drop(columns=["block", "label", "is_leading"], errors="ignore")

    def acr(self) -> pd.DataFrame:
        """Return average certified radius, accuracies and abstention, one row per method and sigma."""
        from bench.report.tables.accuracy import acr_frame

        return acr_frame(self.comparison).drop(columns="label")

    def cost(self) -> pd.DataFrame:
        """Return inference cost, one row per method; where none was measured, the time of certificates by sigma."""
        from bench.report.tables.cost import cost_frame

        return cost_frame(self.comparison).drop(columns="label")

    def certificates(self) -> pd.DataFrame:
        """Return the certificates, one row per method, sigma and image."""
        return certificate_frame(self.run.records)

    def compare(self, first: str, second: str) -> pd.DataFrame:
        """Return the paired tests of two methods, one row per sigma and radius; see `bench compare`.

        Raises:
            UsageError: the run lacks one of them, or both are one.
        """
        from bench.report.tables.paired import paired_frame

        if first == second:
            raise UsageError(f"a comparison of {first} with itself: name two methods")
        for name in (first, second):
            if name not in self.run.header.methods:
                raise UsageError(
                    f"no method {name!r} in the run; {nearest_hint(name, self.run.header.methods)}"
                )
        at = {(one.method, one.sigma): one for one in self.comparison.entries}
        pairs = [
            (at[first, sigma], at[second, sigma])
            for sigma in self.comparison.sigmas
            if {(first, sigma), (second, sigma)} <= at.keys()
        ]
        return paired_frame(self.comparison, pairs).drop(
            columns=["first_label", "second_label"], errors="ignore"
        )

    def figure(self, name: str = "certified_accuracy") -> Picture:
        """Return a figure by the name of its file in the folder of a run, such as "envelope".

        Raises:
            UsageError: there is no such figure.
        """
        from bench.report.figures.write import FIGURES, write_figures

        with tempfile.TemporaryDirectory() as folder:
            if name not in FIGURES or not write_figures(self.comparison, Path(folder), names=(name,)):
                write_figures(self.comparison, Path(folder))  # the message names those that there are
            return Picture(name, _content(Path(folder), name, "png"))

    def to_latex(self, name: str = "certified_accuracy") -> str:
        """Return a table in LaTeX by the name of its file.

        Raises:
            UsageError: there is no such table.
        """
        from bench.report.write import write_tables

        with tempfile.TemporaryDirectory() as folder:
            write_tables(self.comparison, Path(folder))
            return _content(Path(folder), name, "tex").decode()

    def __repr__(self) -> str:
        header = self.run.header
        sigmas = ", ".join(f"{sigma:g}" for sigma in header.sigmas)
        return (
            f"Results of {self.run.folder}: {', '.join(header.methods)} at sigma {sigmas} on "
            f"{len(header.indices)} images of {header.dataset}, n = {header.n:,}"
            + "".join(f"\n{sentence}" for sentence in self.warnings)
        )


def _content(folder: Path, name: str, suffix: str) -> bytes:
    """Return a file that was made in a folder.

    Raises:
        UsageError: it is not there; the message names those that are.
    """
    made = {path.stem: path for path in sorted(folder.glob(f"*.{suffix}"))}
    if name not in made:
        raise UsageError(f"no {suffix} called {name!r}; {nearest_hint(name, made)}")
    return made[name].read_bytes()


def load(folder: Path | str) -> Results:
    """Return the results of a run in a folder, or of its records file; no model is needed.

    Raises:
        RecordsError: there is no run, or it cannot be read.
        UsageError: the folder is no path.
    """
    if not isinstance(folder, str | os.PathLike):
        raise UsageError(f"folder is {shown(folder)}, expected the path of a run")
    try:
        path = user_path(os.fspath(folder))
    except ValueError as error:
        raise UsageError(f"folder: {error}") from error
    return Results(read_run(path))


def run(preset: Path | str = "mnist5k", *, observer: Observer | None = None, **options: Any) -> Results:
    """Certify as `bench run` does, and return the results; a repeated call continues an interrupted run.

    Args:
        preset: name or path of a preset; where neither it nor `options` names radii that n samples reach, they are
            chosen.
        observer: is told of the progress; None: nobody is.
        options: fields of `bench.config.run.RunConfig`, such as methods=("rrcm",), sigmas=(0.5,), limit=40.

    Raises:
        BenchError: as `bench.runs.runner.run`.
    """
    preset = os.fspath(preset)
    if observer is not None and not hasattr(observer, "note"):
        raise UsageError(f"observer is {shown(observer)}, expected an Observer, such as ProgressLines(print)")
    if isinstance(sigmas := options.get("sigmas"), str):
        options = options | {"sigmas": tuple(noise_levels(sigmas))}
    config = _configured(load_preset(preset), options)
    config = config if options.get("radii") is not None else with_radii(config, preset)
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    command = f"bench.run({preset!r}{', ' if given else ''}{given})"
    _, folder = runner.run(config, command=command, observer=observer or Observer())
    return load(folder)


def load_model(
    name: str,
    *,
    sigma: float,
    dataset: str = "mnist5k",
    zoo: Path | str | None = None,
    data_dir: Path | str | None = None,
    image_size: int | None = None,
) -> Classifier:
    """Return a trained method as a classifier for `certify`, `predict` and `certify_many`.

    Args:
        name: of the method.
        sigma: noise level that it was trained for, in pixel units.
        dataset: data set that it was trained on.
        zoo: folder of checkpoints; None: ./zoo, then those of the package.
        data_dir, image_size: of the data set, whose test images tell what the model must fit; see `bench.load_data`.

    Raises:
        CheckpointError: there is no such checkpoint; the message says how to train it.
        DataError: the test images are not there.
        UsageError: an unknown method or data set, a sigma that is no noise level, or the zoo is no folder.
    """
    presets = {one.name for one in list_presets()}
    config = load_preset(dataset) if dataset in presets else RunConfig(dataset=dataset)
    changes = {"methods": (name,), "sigmas": (sigma,), "device": "cpu", "limit": 1}
    places = {"zoo": zoo, "data_dir": data_dir, "image_size": image_size}
    given = {option: value for option, value in places.items() if value is not None}
    config = _configured(config, changes | given)
    zoos.check(None if zoo is None else config.zoo)
    opened = single.open_method(config).smoothed
    if isinstance(opened, Composed):
        setattr(opened.classifier, COMPOSES, opened.compose)
    return opened.classifier


def certify_many(
    model: Model,
    images: Iterable[Tensor],
    labels: Iterable[int] | Tensor | None = None,
    *,
    sigma: float,
    protocol: Protocol | None = None,
) -> pd.DataFrame:
    """Return the certificates of images, one row each: index, label, predict, radius, is_correct, samples.

    Args:
        model: as in `bench.certify`.
        images: (N, C, H, W) float32 in [0,1], or N images (C, H, W).
        labels: N true classes, each in 0..K-1 for a model of K classes; None leaves label and is_correct out.
        sigma: noise level in pixel units, > 0.
        protocol: n0, n, alpha and seed; None: the defaults of `bench.certify`.

    Returns:
        Each radius holds with probability at least 1 - alpha; the noise of image i is that of index i.

    Raises:
        UsageError: another number of labels than of images, a label that is no class of the model, or a protocol of
            other than fixed estimation or the Clopper-Pearson bound.
        DataError, ModelError, NumericalError: as in `bench.certify`.
    """
    import pandas as pd

    images = _listed("images", images)
    classes = None if labels is None else _classes(_listed("labels", labels))
    if classes is not None and len(classes) != len(images):
        raise UsageError(f"{len(classes)} labels for {len(images)} images: give one for each")
    protocol = checked_protocol(Protocol() if protocol is None else protocol)
    if (protocol.estimation, protocol.bound) != ("fixed", "clopper-pearson"):
        raise UsageError(
            f"certify_many has fixed estimation and the bound clopper-pearson, got {protocol.estimation} and "
            f"{protocol.bound}: use bench.run"
        )
    true = [] if classes is None else ["label", "is_correct"]
    columns = ["index", *true, "predict", "radius", "samples"]
    checked_sigma(sigma)
    if not images:
        return pd.DataFrame(columns=columns)
    rows: list[dict[str, Any]] = []
    with modes_kept(model):
        certifier = smoothed(model, images[0], sigma)
        _check_known(classes or (), certifier.num_classes)
        for index, image in enumerate(images):
            found = certifier.certify(image, index, protocol)
            row = {"index": index, "predict": found.predict, "radius": found.radius, "samples": found.samples}
            if classes is not None:
                row |= {"label": classes[index], "is_correct": found.predict == classes[index]}
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def _listed(name: str, values: Any) -> list[Any]:
    """Return the values of a sequence, an array or a generator.

    Raises:
        UsageError: it is none of them.
    """
    try:
        given = iter(values)
    except TypeError as error:
        raise UsageError(f"{name} must be a tensor or a list of them, got {shown(values)}") from error
    return list(given)


def _classes(labels: list[Any]) -> list[int]:
    """Return labels as whole numbers.

    Raises:
        UsageError: one of them is none, or below 0.
    """
    found = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    for label in found:
        if isinstance(label, bool) or not isinstance(label, Integral) or int(label) < 0:
            raise UsageError(
                f"labels hold {shown(label)}, expected classes, whole numbers of 0 or more: leave unknown labels out"
            )
    return [int(label) for label in found]


def _check_known(classes: Sequence[int], num_classes: int) -> None:
    """Raise UsageError for a label that is no class of the model."""
    for position, label in enumerate(classes):
        if label >= num_classes:
            raise UsageError(
                f"the label of image {position} is {label}, and the model has {num_classes} classes, 0 to "
                f"{num_classes - 1}: use a model of these labels, or labels that begin with 0"
            )


def certificate_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return records as a DataFrame, one row each, with `is_correct`."""
    import pandas as pd

    return pd.DataFrame([asdict(one) | {"is_correct": one.is_correct} for one in records])


def _configured(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return a validated configuration with these fields, each method's options checked."""
    given = dict(changes)
    if "dataset" in given and given["dataset"] != config.dataset:
        given = {"options": {}} | given
    config = validate(override(config, given, where="bench.run"), known_methods())
    checked = {
        name: registry.checked_options(name, values, config.sigmas) for name, values in config.options.items()
    }
    return validate(override(config, {"options": checked}, where="bench.run"), known_methods())
