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


def log(level, event, **fields):
    """Write one event. Fields that are None are left out."""
    LOG.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})


def clean(text):
    """Return text without tokens and control characters."""
    for secret in SECRETS:  # one shorter than this is a letter or a word of the text
        text = text.replace(secret, "(token)") if len(secret) > 7 else text
    return "".join(letter if letter.isprintable() else " " for letter in text)


class Changes:
    """Remembers the last value of each subject, so that it is logged again only when it changes."""

    def __init__(self):
        self._last = {}

    def changed(self, subject, value):
        """Return whether value is another than the last time."""
        before, self._last[subject] = self._last.get(subject), value
        return before != value


class _Text(logging.Formatter):
    def format(self, record):
        fields = getattr(record, "fields", {})
        words = ["%s=%s" % (name, repr(value) if isinstance(value, str) and " " in value else value) for name, value in fields.items()]
        return clean(" ".join([record.levelname, record.getMessage()] + words))


class _Json(logging.Formatter):
    def format(self, record):
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + ".%03dZ" % record.msecs
        return clean(json.dumps({"time": moment, "level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}))


def setup(log_format, debug):
    """Send events to standard error. May be called again."""
    formatter = (_Json if log_format == "json" else _Text)()
    if os.environ.get("JOURNAL_STREAM"):
        plain = formatter.format
        formatter.format = lambda record: "<%d>%s" % (PRIORITIES.get(record.levelno, 6), plain(record))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(DEBUG if debug else INFO)
