"""Sealed files: any damage to them is noticed."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from hub.backups.model import FileEntry, Verification
from hub.backups.sealed import DamagedError, seal, unseal

VALUE = Verification("ab" * 32, dt.datetime(2026, 3, 5, tzinfo=dt.UTC), 1.25, 17, ("ä problem", "another"))


def test_what_was_sealed_comes_back() -> None:
    assert unseal(seal(VALUE), Verification, "it") == VALUE


def test_every_single_flipped_bit_is_found() -> None:
    data = seal(VALUE)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(DamagedError):
                unseal(bytes(flipped), Verification, "it")


def test_every_truncation_is_found() -> None:
    data = seal(VALUE)
    for length in range(len(data)):
        with pytest.raises(DamagedError):
            unseal(data[:length], Verification, "it")


def test_a_sealed_file_of_another_kind_is_refused() -> None:
    with pytest.raises(DamagedError, match="not understood"):
        unseal(seal(FileEntry("a", 1, "b")), Verification, "it")


def test_a_value_that_was_edited_without_a_new_seal_is_refused() -> None:
    edited = seal(VALUE).replace(b'"bytes": 17', b'"bytes": 18')
    assert edited != seal(VALUE)
    with pytest.raises(DamagedError, match="has been changed"):
        unseal(edited, Verification, "it")
    assert unseal(seal(dataclasses.replace(VALUE, bytes=18)), Verification, "it").bytes == 18
