"""What must not be read where people look: secrets in the log, and characters that would forge it on a terminal."""

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import unquote

# A shorter one may be a word; it is no secret either.
LEAST_SECRET_CHARACTERS = 6
HIDDEN = "[hidden]"
# A path is decoded as often as somebody on the way may.
_DECODINGS = 5
# Parameters that hold a credential, wherever they stand; and Google's own keys.
_CREDENTIAL = re.compile(
    r"(?i)\b(?:api[_-]?key|key|(?:access|oauth|auth|id)?[_-]?token|secret|password)\s*=.*"
    r"|\b(?:authorization|bearer)[\s:=].*|AIza[0-9A-Za-z_-]{20,}|AQ\.[0-9A-Za-z_-]{20,}",
    re.DOTALL,
)


class Redaction:
    """Hides `secrets`: access tokens and API keys."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= LEAST_SECRET_CHARACTERS}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """Return `text` with every secret hidden."""
        return self._known.sub(HIDDEN, text) if self._known else text

    def path(self, path: str) -> str:
        """Return a path with everything hidden that is a credential or looks like one, however often it is encoded."""
        decoded = path
        for _ in range(_DECODINGS):
            if "%" not in decoded or (once := unquote(decoded)) == decoded:
                break
            decoded = once
        hidden = _CREDENTIAL.sub(HIDDEN, self.text(decoded))
        return path if hidden == decoded else hidden


def digest_of(secret: str) -> str:
    """Return eight characters that stand for a secret where people look."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def printable(text: str) -> str:
    """Return `text` on one line, with what is no printable character escaped: it moves no cursor and forges no line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# What some readers of lines take for the end of one, and JSON does not escape: https://docs.python.org/3/library/stdtypes.html#str.splitlines
_LINE_ENDS = {"\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029", "\x85".encode(): rb"\u0085"}


def one_line(encoded: bytes) -> bytes:
    """Return JSON as one line for every reader."""
    for end, escaped in _LINE_ENDS.items():
        encoded = encoded.replace(end, escaped)
    return encoded
