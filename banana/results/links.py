"""Links to kept pictures: an address that is its own permission, until it expires."""

import hashlib
import os
import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

from itsdangerous import Signer

from banana import errors
from banana.intervals import INTERVALS, Intervals
from banana.ledger.thread import LedgerThread

SECRET_BYTES = 32


class Links:
    """Signs and checks links.

    Args:
        secret: of all machines that share the pictures; None takes the one in `file`, and makes it when there is none.
        file: where the secret of this machine lies.

    """

    def __init__(self, secret: str | None, file: Path, intervals: Intervals = INTERVALS) -> None:
        self._look_seconds = intervals.file_look
        self._secret = secret.encode() if secret else None
        self._file = file
        self._is_of_file = not secret
        self._looked_at = 0.0

    def url(self, base_url: str, name: str, expires_at: int) -> str:
        """Return the link to the file `name`, below `base_url`. Raises OSError when there can be no secret."""
        signature = self._signer().get_signature(f"{name}\n{expires_at}").decode()
        query = urlencode({"exp": expires_at, "sig": signature})
        return f"{base_url}/results/{name}?{query}"

    def check(self, name: str, expires_at: str, signature: str) -> int:
        """Return how many seconds the link is still good for. Raises BadSignature, Expired and LedgerUnavailable."""
        try:
            is_good = self._signer().verify_signature(f"{name}\n{expires_at}", signature.encode())
        except OSError as error:
            raise errors.LedgerUnavailable from error
        if not is_good:
            raise errors.BadSignature(
                "The signature of this link is wrong: it was not made by this service, or was changed."
            )
        left_seconds = int(expires_at) - int(time.time())
        if left_seconds <= 0:
            raise expired()
        return left_seconds

    async def share(self, ledger: LedgerThread) -> None:
        """Take the secret of all who share the ledger, where RESULTS_SECRET names none.

        Raises OSError and LedgerUnavailable.
        """
        if not self._is_of_file:
            return
        with suppress(FileNotFoundError):
            self._secret = self._file.read_bytes()
        own = (self._secret or b"").decode()
        shared = await ledger.look(lambda ledger: ledger.secret(own or secrets.token_hex(SECRET_BYTES)))
        if shared not in (None, own):
            _write(self._file, shared.encode(), replaces=True)
            self._secret = shared.encode()

    def _signer(self) -> Signer:
        """Return what signs links. Raises OSError when there can be no secret."""
        if self._is_of_file:
            self._look()
        assert self._secret is not None
        # Without a derived key: links are checked with the secret alone, and those of earlier releases stay good.
        return Signer(self._secret, key_derivation="none", digest_method=hashlib.sha256)

    def _look(self) -> None:
        """Take the secret in the file, and write it again when the file is gone: all workers have the same. Raises OSError."""
        now = time.monotonic()
        if self._secret is not None and now - self._looked_at < self._look_seconds:
            return
        self._looked_at = now
        try:
            self._secret = _secret_in(self._file, self._secret or secrets.token_hex(SECRET_BYTES).encode())
        except OSError:
            if self._secret is None:
                raise


def expired() -> errors.Expired:
    """Return the error for a picture that is gone."""
    return errors.Expired(
        "This image is no longer kept: it expired, was deleted, or was removed to make room for newer ones."
    )


def _secret_in(file: Path, own: bytes) -> bytes:
    """Return the secret in `file`; `own` is written where there is none. Of several workers that find none, one writes."""
    with suppress(FileNotFoundError):
        return file.read_bytes()
    _write(file, own, replaces=False)
    return file.read_bytes()


def _write(file: Path, secret: bytes, *, replaces: bool) -> None:
    """Write the file whole; what is there already stays, unless it is to be replaced. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as made:
            made.write(secret)
            made.flush()
            os.fsync(made.fileno())
        if replaces:
            Path(temporary).replace(file)
        else:
            with suppress(FileExistsError):
                os.link(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)
