"""Child registries of MMEngine's, scope ``mmaib``.

A config names what is ours as ``mmaib.X`` under any host's default scope.
The first look-up imports our layers and the plug-ins of the installed hosts.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmengine import registry as root

from .compat import missing_plugins, plugin_folders

_broken: dict[str, str] = {}


def _import_plugins() -> None:
    """Import the plug-ins of the installed hosts. A host that does not
    import must not take the others along."""
    for folder in plugin_folders():
        if folder in _broken:
            continue
        try:
            import_module(folder)
        except (ImportError, AssertionError) as error:
            _broken[folder] = f'{folder} does not import: {error}.'


class PluginRegistry(root.Registry):
    """A registry that tells which host a missing name may be waiting for."""

    def import_from_location(self) -> None:
        if not self._imported:
            super().import_from_location()
            _import_plugins()

    def get(self, key: str) -> Any:
        found = super().get(key)
        name = key.removeprefix(f'{self.scope}.')
        if found is None and (key != name or '.' not in key):
            raise KeyError(
                ' '.join(
                    [
                        f'{self.scope}.{name} is not registered.',
                        f'Known here: {sorted(self.module_dict)}.',
                        "A host's name needs its scope (mmdet.FPN) or a",
                        'default scope (init_default_scope).',
                        *missing_plugins(),
                        *_broken.values(),
                    ]
                )
            )
        return found


MODELS = PluginRegistry(
    'model',
    parent=root.MODELS,
    scope='mmaib',
    locations=['mmaib.layers', 'mmaib.datasets'],
)
HOOKS = PluginRegistry(
    'hook', parent=root.HOOKS, scope='mmaib', locations=['mmaib.hooks']
)
OPTIM_WRAPPER_CONSTRUCTORS = PluginRegistry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmaib',
    locations=['mmaib.layers'],
)
TRANSFORMS = PluginRegistry(
    'transform',
    parent=root.TRANSFORMS,
    scope='mmaib',
    locations=['mmaib.datasets'],
)
