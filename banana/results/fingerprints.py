"""What makes two requests the same: their route, and their content as it is understood, pictures by digest.

Whitespace, the order of keys, the boundary of a form and what stands for a default do not count.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from banana.payload.lazyjson import LongString
from banana.payload.pictures import EncodedPicture
from banana.payload.pieces import Bytes

# In front of every fingerprint. Earlier releases, up to 2.1, made theirs in another way, and put nothing in front.
_SCHEME = "json:"


def fingerprint_of(route: str, content: object) -> str:
    """Return the fingerprint of a request: a digest of its canonical JSON; `content` is what JSON is made of, and pictures.

    Raises TypeError for anything else.
    """
    canonical = json.dumps([route, _canonical(content)], sort_keys=True, separators=(",", ":"))
    return _SCHEME + hashlib.sha256(canonical.encode()).hexdigest()


def are_of_one_request(fingerprint: str, earlier: str) -> bool:
    """Return whether two fingerprints are of the same request; one that an earlier release made is taken for the same."""
    return fingerprint == earlier or not earlier.startswith(_SCHEME)


def fields_of(body: BaseModel) -> dict[str, Any]:
    """Return the fields of a body that say something, neither null nor the default; so of what is in it."""
    fields = {name: getattr(body, name) for name in type(body).model_fields}
    defaults = {name: field.default for name, field in type(body).model_fields.items()}
    return {name: _plain(value) for name, value in fields.items() if value is not None and value != defaults[name]}


def _plain(value: Any) -> Any:
    """Return what JSON and pictures are made of for what pydantic made of it."""
    if isinstance(value, BaseModel):
        return fields_of(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _canonical(value: object) -> object:
    """Return `value` as JSON that has one spelling: texts and pictures, which may be megabytes, by their digest."""
    match value:
        case None | bool():
            return value
        case int() | float():
            return float(value) if abs(value) < 1 << 53 else value
        case str():
            return _digest("text", [value.encode("utf-8", "surrogatepass")])
        case LongString():
            return _digest("text", value.unescaped())
        case EncodedPicture():
            return _digest("picture", value.decoded())
        case Mapping():
            return {name: _canonical(item) for name, item in value.items()}
        case Sequence():
            return [_canonical(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no fingerprint")


def _digest(kind: str, blocks: Iterable[Bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return f"{kind}:{digest.hexdigest()}"
