"""Columns come back as they went in, and damage is an error, never other numbers of another length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DataError
from edge.trackstore.columns import Unpacker, pack

numbers = st.lists(st.integers(-(2**62), 2**62) | st.integers(-300, 300), max_size=300)


@given(st.lists(numbers, max_size=4))
def test_columns_come_back(columns: list[list[int]]) -> None:
    found = Unpacker(b"".join(pack(np.array(column, np.int64)) for column in columns))
    assert [found.column().tolist() for _ in columns] == columns


def test_small_differences_take_less_than_a_byte_each() -> None:
    values = np.random.default_rng(1).integers(-3, 4, 10_000)
    assert len(pack(values)) < 0.45 * len(values)
    assert len(pack(np.zeros(10_000, np.int64))) < 16


@given(numbers, st.binary(max_size=40), st.integers(0, 400))
def test_damage_is_an_error_or_a_column_of_the_length_that_it_says(column: list[int], rubbish: bytes, at: int) -> None:
    data = pack(np.array(column, np.int64))
    for damaged in (data[: at % (len(data) + 1)], data[:at] + rubbish + data[at:], rubbish):
        try:
            found = Unpacker(damaged).column()
        except DataError:
            continue
        assert len(found) <= 16 << 20


def test_a_bomb_takes_no_memory() -> None:
    import struct

    with pytest.raises(DataError):
        Unpacker(struct.pack("<BBII", 2, 8, 2**31, 0)).column()
