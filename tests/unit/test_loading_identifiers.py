"""A repeated document is noticed, whichever way of the converter its copies went."""

from __future__ import annotations

from typing import Any

import pytest
from bson.objectid import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from hub.loading import identifiers
from hub.loading.batch import Batch, Converter
from hub.loading.identifiers import Identifiers
from hub.loading.model import DAY_US, Mapping, microseconds
from tests.support.readings import NOON, reading

START = microseconds(NOON.replace(hour=0))
WINDOW = (START, START + DAY_US)
MAPPING = Mapping(("timestamp",), ("payload", "value"), *WINDOW)


def repeats(*batches: Batch) -> bool:
    seen = Identifiers()
    for batch in batches:
        seen.add(batch)
    return seen.may_repeat()


@given(st.lists(st.binary(min_size=12, max_size=12), unique=True, max_size=40), st.lists(st.text(), unique=True))
def test_different_ids_are_different(object_ids: list[bytes], texts: list[str]) -> None:
    assert not repeats(Batch(0, b"", {}, [], 0, [b"".join(object_ids)], texts))


@pytest.mark.parametrize("again", [{}, {"source": None}, {"time": "2026-03-05T12:00:00Z"}], ids=str)
@pytest.mark.parametrize("many", [1, 10**6])
@pytest.mark.parametrize("identifier", [ObjectId(), "text", 5], ids=lambda value: type(value).__name__)
def test_an_id_is_the_same_by_columns_by_rows_and_by_the_careful_way(
    identifier: object, many: int, again: dict[str, Any]
) -> None:
    converter = Converter(MAPPING, WINDOW, many=many)
    first, other = (converter.convert(reading(i, **{"time": NOON, **again})) for i in (identifier, ObjectId()))
    second = Converter(MAPPING, WINDOW, many=1).convert(reading(identifier))
    assert repeats(first, second)
    assert not repeats(first, other)
    assert sum(first.days.values()) == sum(second.days.values()) == 1


def test_more_ids_than_are_kept_may_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [Batch(0, b"", {}, [], 0, [number.to_bytes(12, "big")], []) for number in range(3)]
    assert not repeats(*batches)
    monkeypatch.setattr(identifiers, "_LIMIT", 2)
    assert repeats(*batches)
