"""Child registries of MMEngine's, scope ``mmaib``.

A config names what is ours as ``mmaib.X`` under any host's default scope.
The first look-up imports our layers and the plug-ins of the installed hosts.
"""

from __future__ import annotations

from typing import Any

from mmengine import registry as root

from .compat import missing_plugins, plugin_folders


class PluginRegistry(root.Registry):
    """A registry that tells which host a missing name may be waiting for."""

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
                    ]
                )
            )
        return found


MODELS = PluginRegistry(
    'model',
    parent=root.MODELS,
    scope='mmaib',
    locations=['mmaib.layers', 'mmaib.datasets', *plugin_folders()],
)
HOOKS = PluginRegistry(
    'hook', parent=root.HOOKS, scope='mmaib', locations=['mmaib.hooks']
)
