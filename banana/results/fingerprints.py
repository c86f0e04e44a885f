"""What makes two requests the same: their route, and their content as it is understood, pictures by digest.

Whitespace, the order of keys, the boundary of a form and what stands for a default do not count.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from banana.payload.lazyjson import LongString
from banana.payload.pictures import EncodedPicture


def fingerprint_of(route: str, content: object) -> str:
    """Return the fingerprint of a request, in hexadecimal; `content` is what JSON is made of, and pictures."""
    digest = hashlib.sha256()
    _add(digest, [route, content])
    return digest.hexdigest()


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


def _add(digest: Any, value: object) -> None:
    """Add `value` to the digest, each part behind its kind and its length, so that no two contents look the same."""
    match value:
        case None | bool():
            digest.update(f"{value};".encode())
        case int() | float():
            digest.update(f"number {float(value)!r};".encode() if abs(value) < 1 << 53 else f"number {value};".encode())
        case str():
            text = value.encode("utf-8", "surrogatepass")
            digest.update(b"text %s;" % hashlib.sha256(text).digest())
        case LongString():
            _add_blocks(digest, b"text", value.unescaped())
        case EncodedPicture():
            _add_blocks(digest, b"picture", value.decoded())
        case Mapping():
            digest.update(b"object %d;" % len(value))
            for name in sorted(value):
                _add(digest, name)
                _add(digest, value[name])
        case Sequence():
            digest.update(b"list %d;" % len(value))
            for item in value:
                _add(digest, item)
        case _:
            raise TypeError(f"{type(value).__name__} has no fingerprint")


def _add_blocks(digest: Any, kind: bytes, blocks: Any) -> None:
    inner = hashlib.sha256()
    for block in blocks:
        inner.update(block)
    digest.update(b"%s %s;" % (kind, inner.digest()))
