"""An entry and a task, for tests."""

import time
from dataclasses import replace

from banana.ledger.ledger import Entry

LATER = int(time.time()) + 3600
ENTRY = Entry(
    id="a" * 32,
    caller="ann",
    key="k",
    route="/generate",
    fingerprint="f",
    calls=1,
    has_links=False,
    is_task=False,
    owner="w1",
    request_id="r",
    keep_seconds=60,
    created_at=1.5,
    expires_at=LATER,
)
TASK = replace(ENTRY, id="b" * 32, key=None, is_task=True)
