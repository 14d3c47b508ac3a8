"""Answers as JSON or CSV, whichever the caller accepts."""

from __future__ import annotations

import csv
import datetime as dt
import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from fastapi import Request, Response

from hub.proxy.listings import Listing
from hub.proxy.problems import Problem

JSON, CSV = "application/json", "text/csv"
_OFFERED = (JSON, CSV)


def choose(accept: str | None) -> str:
    """The offered type that an Accept header likes best, JSON first. Raises Problem 406."""
    liked = {offered: _liking(offered, accept) for offered in _OFFERED} if accept else {JSON: 1.0}
    best = max(liked, key=lambda offered: liked[offered])
    if liked[best] <= 0:
        raise Problem(406, f"This is told as {' or '.join(_OFFERED)}.")
    return best


def _liking(offered: str, accept: str) -> float:
    """The quality that the most exact range of the header gives to a type."""
    kind = offered.split("/", 1)[0]
    exactness = {offered: 3, f"{kind}/*": 2, "*/*": 1}
    best = (0, 0.0)
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        best = max(best, (exactness.get(name, 0), quality if name in exactness else 0.0), key=lambda pair: pair[0])
    return best[1]


def answer(
    request: Request, media_type: str, listing: Listing, rows: Iterable[Sequence[Any]], cursor: str | None
) -> Response:
    """A page of rows; the next one, if there is one, is named by `next` and by a Link header."""
    headers = {"Vary": "Accept"}
    if cursor:
        parameters = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        headers["Link"] = f'<{request.url.path}?{urlencode([*parameters, ("cursor", cursor)])}>; rel="next"'
    if media_type == CSV:
        return Response(_csv(listing, rows), headers=headers, media_type="text/csv; charset=utf-8; header=present")
    texts = [number for number, name in enumerate(listing.columns) if name in listing.texts]
    if texts:
        rows = [_raw(row, texts) for row in rows]
    record = _record(listing)
    data = [record(*row) for row in rows]
    return Response(msgspec.json.encode({"data": data, "next": cursor}), headers=headers, media_type=JSON)


@functools.cache
def _record(listing: Listing) -> type[msgspec.Struct]:
    """A row with its names: made in half the time of a dictionary, and nothing for the garbage collector."""
    return msgspec.defstruct(listing.relation, listing.columns, gc=False)


def _raw(row: Sequence[Any], texts: Sequence[int]) -> list[Any]:
    """The row with its JSON texts marked as JSON, to be passed through."""
    parts = list(row)
    for number in texts:
        if parts[number] is not None:
            parts[number] = msgspec.Raw(parts[number].encode())
    return parts


def _csv(listing: Listing, rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(listing.columns)
    for row in rows:
        writer.writerow([part.isoformat() if isinstance(part, dt.datetime) else part for part in row])
    return text.getvalue()
