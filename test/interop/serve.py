"""Answers requests of the runner: one JSON document a line in, one a line out, until the input ends."""

import json
import os
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

# Before anything else starts: what it prints, and what a process that it starts prints, goes to the error output.
OUT = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def text(value):
    """A value as the runner compares it: times as microseconds since 1970, decimals with all digits."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return str((value - EPOCH) // timedelta(microseconds=1))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def serve(answer):
    """`answer(request)` gives a dict; what it raises goes back as `error`."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except BaseException as error:  # delta-rs panics with BaseException
            reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
        OUT.write(json.dumps(reply) + "\n")
        OUT.flush()
