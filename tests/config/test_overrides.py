"""Strict changes to a frozen dataclass: what converts, and what is refused in which words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from bench.config.overrides import override
from bench.errors import UsageError
from bench.types import Task


@dataclass(frozen=True, kw_only=True)
class Example:
    """One field of every kind."""

    steps: int = 1
    rate: float = 0.5
    flip: bool = False
    name: str = "a"
    folder: Path = Path("here")
    limit: int | None = None
    batch: int | Literal["auto"] = "auto"
    depth: Literal[2, 4] = 2
    sizes: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    crop: tuple[float, float] = (0.1, 1.0)
    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    task: Task | None = None


TASK = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", "8", 8),
        ("steps", "-8", -8),
        ("rate", "1e-3", 0.001),
        ("rate", 2, 2.0),
        ("flip", "true", True),
        ("flip", "False", False),
        ("flip", True, True),
        ("name", "8", "8"),
        ("folder", "a/b", Path("a/b")),
        ("folder", "~/b", Path.home() / "b"),
        ("limit", "none", None),
        ("limit", None, None),
        ("limit", "3", 3),
        ("batch", "auto", "auto"),
        ("batch", "64", 64),
        ("depth", "4", 4),
        ("depth", 4, 4),
        ("sizes", "1, 2,3", (1, 2, 3)),
        ("sizes", [1, 2], (1, 2)),
        ("sizes", "", ()),
        ("words", "x,y", ("x", "y")),
        ("crop", "0.4,1", (0.4, 1.0)),
        ("table", {"rrcm": {"depth": 4}}, {"rrcm": {"depth": 4}}),
        ("task", TASK, TASK),
    ],
)
def test_converts_by_the_type_of_the_field(name: str, value: object, expected: object) -> None:
    got = getattr(override(Example(), {name: value}), name)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", "8.0", "an integer"),
        ("steps", 8.0, "an integer"),
        ("steps", True, "an integer"),
        ("steps", "none", "an integer"),
        ("rate", "fast", "a finite number"),
        ("rate", "nan", "a finite number"),
        ("rate", float("inf"), "a finite number"),
        ("rate", False, "a finite number"),
        ("flip", "yes", "true or false"),
        ("flip", 1, "true or false"),
        ("name", 8, "text"),
        ("folder", "", "a path"),
        ("limit", "many", "an integer or none"),
        ("batch", "automatic", "an integer or one of auto"),
        ("depth", "3", "one of 2, 4"),
        ("sizes", "1,,2", "a list, each an integer"),
        ("sizes", 1, "a list, each an integer"),
        ("words", ["x", 1], "a list, each text"),
        ("crop", "0.4", "a list of 2: a finite number, a finite number"),
        ("table", "rrcm", "a table"),
        ("table", {"rrcm": 4}, "a table"),
        ("task", "mnist5k", "Task or none"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(name: str, value: object, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(Example(), {name: value})
    assert str(caught.value) == f"{name} is {value!r}, expected {expected}"


def test_a_long_value_is_named_by_its_ends() -> None:
    for value in (10**400, "9" * 10**7, 10**5000):
        with pytest.raises(UsageError, match=r"^rate is .{,120}, expected a finite number$"):
            override(Example(), {"rate": value})


@pytest.mark.parametrize("text", ["٣", "0.5_0", "1_000", "0x10", "1e", ".", "", "- 1", "1,5"])
def test_numbers_of_other_forms_than_decimal_ones_are_refused(text: str) -> None:
    for name in ("rate", "steps"):
        with pytest.raises(UsageError, match=f"^{name} is "):
            override(Example(), {name: text})


def test_an_unknown_key_gives_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^rrcm: unknown key 'step'; did you mean 'steps'\?$"):
        override(Example(), {"step": 1}, where="rrcm")


def test_a_key_near_to_none_gives_all_keys() -> None:
    with pytest.raises(UsageError, match="unknown key 'zzz'; valid: steps, rate, flip,"):
        override(Example(), {"zzz": 1})


def test_the_original_and_other_fields_stay() -> None:
    original = Example(name="b")
    changed = override(original, {"steps": 2})
    assert (original.steps, changed.steps, changed.name) == (1, 2, "b")
