"""The journal: one line an event, each with a stable name, as text or JSON. Known tokens never get into one."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

LOG = logging.getLogger("beta9_agent")
DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
PRIORITIES = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3}  # syslog's, which journald reads at the start of a line
SECRETS: set[str] = set()  # what was read from credentials so far


def log(level: int, event: str, **fields: object) -> None:
    """Write one event. Fields that are None are left out."""
    LOG.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})


def clean(text: str) -> str:
    """Return text without tokens and control characters."""
    for secret in SECRETS:  # one shorter than this is a letter or a word of the text
        text = text.replace(secret, "(token)") if len(secret) > 7 else text
    return "".join(letter if letter.isprintable() else " " for letter in text)


class Changes:
    """Remembers the last value of each subject, so that it is logged again only when it changes."""

    def __init__(self) -> None:
        self._last: dict[str, object] = {}

    def changed(self, subject: str, value: object) -> bool:
        """Return whether value is another than the last time."""
        before, self._last[subject] = self._last.get(subject), value
        return before != value


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = [record.levelname, record.getMessage()]
        for name, value in getattr(record, "fields", {}).items():
            words.append(f"{name}={repr(value) if isinstance(value, str) and ' ' in value else value}")
        return clean(" ".join(words))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        event = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        return clean(json.dumps({**event, **getattr(record, "fields", {})}))


class _Prioritised(logging.Formatter):
    """What another one makes, with the priority that journald reads before it."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES.get(record.levelno, 6)}>{self._plain.format(record)}"


def setup(log_format: str, debug: bool) -> None:
    """Send events to standard error. May be called again."""
    formatter: logging.Formatter = (_Json if log_format == "json" else _Text)()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Prioritised(formatter) if os.environ.get("JOURNAL_STREAM") else formatter)
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(DEBUG if debug else INFO)
