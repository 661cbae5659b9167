"""Context stacks, local to a thread and an asyncio task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import torch

T = TypeVar('T')


class _OfThread(threading.local):
    def __init__(self) -> None:
        # here and not in the class: where an instance lacks the attribute,
        # torch.compile guards on a dict that is not this thread's
        self.stack: tuple = ()


class ContextStack(Generic[T]):
    """Items that are opened around calls, one inside the other.

    Another thread, a replica of ``DataParallel``'s for instance, or another
    asyncio task opens its own and sees none of these.

    Args:
        name: of the context variable.
    """

    def __init__(self, name: str) -> None:
        self._context: ContextVar[tuple[T, ...]] = ContextVar(name, default=())
        # torch.compile cannot read a ContextVar, a threading.local it can
        self._thread = _OfThread()

    def innermost(self) -> T | None:
        """What was opened last; None if nothing is open."""
        compiling = torch.compiler.is_dynamo_compiling()
        stack = self._thread.stack if compiling else self._context.get()
        return stack[-1] if stack else None

    @contextmanager
    def open(self, item: T) -> Iterator[T]:
        compiling = torch.compiler.is_dynamo_compiling()
        if not compiling:
            self._context.set((*self._context.get(), item))
        self._thread.stack = (*self._thread.stack, item)
        try:
            yield item
        finally:
            # by identity, not by a token or from the end: an abandoned
            # generator may exit out of order, or in another context
            if not compiling:
                self._context.set(_without(self._context.get(), item))
            self._thread.stack = _without(self._thread.stack, item)


def _without(stack: tuple, item: Any) -> tuple:
    return tuple(other for other in stack if other is not item)


def in_this_thread(hook: Callable) -> Callable:
    """A hook for the length of a call, which leaves alone what other threads
    run through the same module meanwhile."""
    own = threading.get_ident()

    def guarded(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == own else None

    return guarded
