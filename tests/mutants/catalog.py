"""Mutants made by hand: in each, one small mistake that a person could make and that would hurt somebody."""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """file: where. was: text that occurs there exactly once. now: what it becomes."""

    file: str
    was: str
    now: str


MISTAKES: list[Mistake] = []
