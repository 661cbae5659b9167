"""Every class that a config can name, its fields and their defaults, from the
signatures and docstrings: a page of the site."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

from mmaib import registry

PLUGINS = (
    'mmaib.models.detection',
    'mmaib.models.segmentation',
    'mmaib.models.classification',
    'mmaib.evaluation',
    'mmaib.hooks',
    'mmaib.layers',
    'mmaib.models',
    'mmaib.preflight',
    'mmaib.datasets',
)


def registered() -> Iterator[tuple[str, str, type]]:
    """Registry, name and class of every part of mmaib."""
    for module in PLUGINS:
        import_module(module)
    for found in vars(registry).values():
        if isinstance(found, registry.PluginRegistry):
            for name, built in sorted(found.module_dict.items()):
                yield found.name, name, built


def plain(text: str) -> str:
    """reStructuredText of a docstring as a cell of a table."""
    text = re.sub(r':\w+:`~?\.?([^`]+)`', r'`\1`', text)
    text = text.replace('``', '`').replace('|', r'\|')
    return ' '.join(text.split())


def described(built: type) -> dict[str, str]:
    """What a docstring's ``Args:`` says of each field."""
    doc = inspect.getdoc(built) or ''
    section = re.search(r'^Args:\n(.*?)(?=^\S|\Z)', doc, re.M | re.S)
    found = re.findall(
        r'^    (\w+): (.*?)(?=^    \w+: |\Z)',
        section[1] if section else '',
        re.M | re.S,
    )
    return {name: plain(text) for name, text in found}


def first_sentence(built: type) -> str:
    """Of its docstring, empty without one."""
    doc = inspect.getdoc(built) or ''
    return plain(re.split(r'(?<=[.:])\s', doc, maxsplit=1)[0])


def fields(built: type) -> Iterator[tuple[str, str]]:
    """Name and default of what a config can set."""
    for name, parameter in inspect.signature(built).parameters.items():
        if parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        needed = parameter.default is inspect.Parameter.empty
        yield name, 'needed' if needed else f'`{parameter.default!r}`'


def base_of(built: type) -> str:
    """The base library's class that it extends, empty if there is none."""
    for base in getattr(built, '__mro__', ())[1:]:
        if not base.__module__.startswith(('mmaib', 'torch', 'builtins')):
            return f'{base.__module__.partition(".")[0]}.{base.__name__}'
    return ''


def own_fields(built: type) -> bool:
    """Whether the signature is mmaib's, and not a base library's."""
    made = built.__init__ if isinstance(built, type) else built
    return made is object.__init__ or made.__module__.startswith('mmaib')


def passes_on(built: type) -> bool:
    """Whether ``**kwargs`` takes more fields."""
    return any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in inspect.signature(built).parameters.values()
    )


def reference() -> str:
    """The page, in Markdown."""
    parts = ['# Config reference', '']
    parts += [
        'Made from the signatures. In a config `X` is always `mmaib.X`; how '
        'the fields work together is on the page of [fields](../fields.md).',
        '',
    ]
    latest = None
    for kind, name, built in registered():
        if kind != latest:
            parts += [f'## {kind[0].upper()}{kind[1:]}s', '']
            latest = kind
        parts += [f'### mmaib.{name}', '', first_sentence(built), '']
        texts = described(built)
        base = base_of(built)
        if not own_fields(built):
            parts += [f'Its fields are those of `{base}`.', '']
            continue
        rows = [
            f'| `{field}` | {default} | {texts.get(field, "")} |'
            for field, default in fields(built)
        ]
        if rows:
            parts += ['| field | default | what |', '|---|---|---|', *rows, '']
        if base and passes_on(built):
            parts += [f'Further fields: those of `{base}`.', '']
    return '\n'.join(parts)
