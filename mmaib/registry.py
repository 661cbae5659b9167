"""Child registries of MMEngine's, scope ``mmaib``.

A config names mmaib's parts as ``mmaib.X`` under any base library's default
scope. The first look-up imports mmaib's layers; a name that is not among them,
the plug-ins of the installed base libraries, one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from typing import Any

from mmengine import registry as root
from mmengine.registry import DefaultScope

from mmaib.checks import part_fields
from mmaib.compat import installed_libraries, missing_plugins

_broken: dict[str, str] = {}


def _plugins() -> Iterator[None]:
    """Import the plug-ins of the installed base libraries, one by one, that of
    the default scope first. A base library that does not import must not take
    the others along."""
    scope = DefaultScope.get_current_instance()
    library = scope.scope_name if scope else ''
    for package in sorted(
        installed_libraries(), key=lambda p: p.module != library
    ):
        for module in package.plugins:
            if module in _broken:
                continue
            try:
                import_module(module)
            except (ImportError, AssertionError) as error:
                _broken[module] = f'{module} does not import: {error}.'
            yield


class PluginRegistry(root.Registry):
    """A registry that imports base libraries' plug-ins until a name is found,
    and names the library that a missing one may be waiting for."""

    def get(self, key: str) -> Any:
        found = super().get(key)
        name = key.removeprefix(f'{self.scope}.')
        if found is not None or (key == name and '.' in key):
            return found
        for _ in _plugins():
            if name in self.module_dict:
                return self.module_dict[name]
        raise KeyError(
            ' '.join(
                [
                    f'{self.scope}.{name} is not registered.',
                    f'Known here: {sorted(self.module_dict)}.',
                    "A base library's name needs its scope (mmdet.FPN) or a",
                    'default scope (init_default_scope).',
                    *missing_plugins(),
                    *_broken.values(),
                ]
            )
        )


def _child(name: str, parent: root.Registry, *parts: str) -> PluginRegistry:
    """mmaib's registry below one of MMEngine's.

    Args:
        name: of what it holds.
        parent: MMEngine's.
        parts: of mmaib that register in it.
    """
    locations = [f'mmaib.{part}' for part in parts]
    return PluginRegistry(
        name, parent=parent, scope='mmaib', locations=locations
    )


MODELS = _child('model', root.MODELS, 'layers', 'models')
HOOKS = _child('hook', root.HOOKS, 'hooks')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor', root.OPTIM_WRAPPER_CONSTRUCTORS, 'layers'
)
DATASETS = _child('dataset', root.DATASETS, 'datasets')
TRANSFORMS = _child('transform', root.TRANSFORMS, 'datasets')
METRICS = _child('metric', root.METRICS, 'evaluation')


def build_part(
    field: str, config: dict | None, default: str, **own: Any
) -> Any:
    """A part of a layer or a head, from the layer's field for it.

    Args:
        field: that holds the part's config.
        config: its fields; None is none of them.
        default: its type, unless the config says otherwise.
        own: fields that the layer sets.

    Example:
        >>> build_part('map', dict(channels=4), 'mmaib.PositionWiseAttention',
        ...            in_channels=8).stochastic
        False

    Raises:
        TypeError: if the config is neither a dict nor None.
        ValueError: if it sets one of ``own``, or a field that the part does
            not have.
    """
    fields = part_fields(field, config, own)
    kind = fields.get('type', default)
    part = MODELS.get(kind) if isinstance(kind, str) else kind
    if isinstance(part, type):
        known = signature(part).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
        other = {*fields} - {*known, 'type'}
        if other and not takes_all:
            free = [name for name in known if name not in own]
            raise ValueError(
                f'{field}: {part.__name__} has no {", ".join(sorted(other))}; '
                f'its fields are {", ".join(free)}'
            )
    return MODELS.build({'type': default, **fields, **own})


def type_path(kind: Any) -> str:
    """What a config's ``type`` says, as text: in MMEngine's pure-Python style
    it is a class or a function, and its path then."""
    if isinstance(kind, str):
        return kind
    return f'{kind.__module__}.{kind.__qualname__}'


def type_name(kind: Any) -> str:
    """The package and the name in a config's ``type``, whether that is text,
    a class, or a class's path, as MMEngine dumps one.

    Example:
        >>> from mmaib.hooks import AttentionEvalHook
        >>> type_name(AttentionEvalHook), type_name('mmaib.AttentionEvalHook')
        ('mmaib.AttentionEvalHook', 'mmaib.AttentionEvalHook')
        >>> type_name('mmseg.evaluation.metrics.IoUMetric'), type_name('FPN')
        ('mmseg.IoUMetric', 'FPN')
    """
    package, *inner = type_path(kind).split('.')
    return '.'.join([package, *inner[-1:]])


def base_class(owner: str, field: str, name: Any) -> type:
    """The class that a field names, in the default scope's registry.

    Args:
        owner: type of what has the field.
        field: where the name stands.
        name: of a base model, or of any part of one, or its class.

    Raises:
        KeyError: naming the field, if it is no class that is registered.
    """
    if isinstance(name, type):
        return name
    with MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(type_path(name))
    if not isinstance(found, type):
        raise KeyError(
            f'{owner}: {field}={name!r} is not in the '
            f'{registry.scope}::{registry.name} registry'
        )
    return found
