"""Versions, compiled operators, and what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mmaib.compat import report


def prepare(args: argparse.Namespace) -> Callable[[], int]:
    def work() -> int:
        text, healthy = report()
        print(text)
        return not healthy

    return work
