"""Bloom filters of 64-bit hashes: which of many ids a set may hold, in four bytes for each of its members."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

# A thousand ids asked of seven hundred filters shall hardly ever be taken for possible: 3 in 10 million are.
_BITS = 32
_PROBES = 16
_LOW = np.uint64(0xFFFFFFFF)
_PIECE = 2**18  # hashes at a time: the numbers of the probes take memory


def make(hashes: Hashes) -> bytes:
    """The filter of these hashes."""
    bits = np.zeros(max(len(hashes), 1) * _BITS, np.bool_)
    for start in range(0, len(hashes), _PIECE):
        for positions in _positions(hashes[start : start + _PIECE], len(bits)):
            bits[positions] = True
    return np.packbits(bits, bitorder="little").tobytes()


def may_hold(filter_: bytes, hashes: Hashes) -> Hashes:
    """Those of the hashes that the filter's set may have; never one of its members is missing."""
    octets = np.frombuffer(filter_, np.uint8)
    left = hashes
    for probe in range(_PROBES):
        if not left.size:
            break
        positions = _position(left, probe, len(octets) * 8)
        left = left[octets[positions >> np.uint64(3)] >> (positions & np.uint64(7)).astype(np.uint8) & np.uint8(1) == 1]
    return left


def _positions(hashes: Hashes, bits: int) -> list[Hashes]:
    return [_position(hashes, probe, bits) for probe in range(_PROBES)]


def _position(hashes: Hashes, probe: int, bits: int) -> Hashes:
    """The place of each hash for one of the probes: double hashing by its two halves (Kirsch and Mitzenmacher 2006)."""
    places: Hashes = ((hashes & _LOW) + np.uint64(probe) * (hashes >> np.uint64(32) | np.uint64(1))) % np.uint64(bits)
    return places
