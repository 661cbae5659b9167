"""Models without DDP's wrapper, and mixed-in classes that pickle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.model import is_model_wrapper

# what is mixed into a base library's class may have any of its attributes
Mixin: Any = object


def unwrapped(model: Any) -> Any:
    """The model, without a DistributedDataParallel around it."""
    return model.module if is_model_wrapper(model) else model


def mixed(
    name: str, bases: tuple[type, ...], make: Callable[[type], type]
) -> type:
    """A class of these bases that no module holds, whose objects are copied
    and pickled by their base library's class all the same.

    Args:
        name: of the class.
        bases: the base library's class last.
        make: by which it is made of the base library's class alone, again and
            again the same; a function of a module.
    """

    def reduce(self: Any, protocol: Any) -> tuple:
        reduced: tuple = super(made, self).__reduce_ex__(protocol)
        if type(self) is not made:  # a subclass has a module
            return reduced
        return (_without_init, (make, bases[-1]), *reduced[2:])

    made: Any = type(name, bases, {'__reduce_ex__': reduce})
    return made


def _without_init(make: Callable[[type], type], cls: type) -> Any:
    """An object to be filled from a pickle."""
    made: Any = make(cls)
    return made.__new__(made)
