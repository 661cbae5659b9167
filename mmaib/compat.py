"""Base libraries and their versions; the only file that knows distribution
names."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from packaging.version import Version

import mmaib


@dataclass(frozen=True)
class Package:
    """A package that mmaib builds on, under the names it is distributed by.

    Attributes:
        module: import name.
        distributions: tested ranges ``{distribution: (first, below)}``, the
            recommended distribution first.
        plugins: mmaib's modules that need it, its folder of models first.
        optional: whether one may do without it; of the base libraries, one is
            needed.
    """

    module: str
    distributions: dict[str, tuple[str, str]]
    plugins: tuple[str, ...] = ()
    optional: bool = False

    def installed(self) -> bool:
        return find_spec(self.module) is not None

    def found(self) -> list[tuple[str, str]]:
        """Names and versions of the distributions that are installed."""
        found = []
        for name in self.distributions:
            with suppress(metadata.PackageNotFoundError):
                found.append((name, metadata.version(name)))
        return found

    def distribution(self) -> tuple[str, str] | None:
        """Name and version of what is installed, or None."""
        return next(iter(self.found()), None)

    def advice(self) -> str:
        name, (first, below) = next(iter(self.distributions.items()))
        return f"pip install '{name}>={first},<{below}'"

    def problem(self) -> str | None:
        """What is wrong with the installation and what to do, or None."""
        if not self.installed():
            return f'{self.module} is not installed: {self.advice()}'
        found = self.found()
        if len(found) > 1:
            names = ' and '.join(name for name, _ in found)
            return (
                f'{names} both install {self.module} and overwrite each '
                "other's files: make a new environment with one of them"
            )
        if not found:
            return None
        name, version = found[0]
        first, below = self.distributions[name]
        # a release candidate or a local build counts as its release
        release = Version(Version(version).base_version)
        if Version(first) <= release < Version(below):
            return None
        return (
            f'{name} {version} is outside the tested range '
            f'[{first}, {below}): {self.advice()}'
        )


PACKAGES = (
    Package('torch', {'torch': ('2.6', '2.14')}),
    Package(
        'mmengine',
        {
            'onedl-mmengine': ('0.10.10', '0.11'),
            'mmengine': ('0.10.3', '0.11'),
        },
    ),
    Package('mmcv', {'onedl-mmcv': ('2.3', '2.4'), 'mmcv': ('2.0.1', '2.2')}),
    Package(
        'mmdet',
        {
            'onedl-mmdetection': ('3.5', '3.6'),
            'mmdet': ('3.3', '3.4'),
        },
        plugins=(
            'mmaib.models.detection',
            'mmaib.evaluation.uncertainty_coco_metric',
        ),
        optional=True,
    ),
    Package(
        'mmseg',
        {
            'onedl-mmsegmentation': ('1.4', '1.5'),
            'mmsegmentation': ('1.2', '1.3'),
        },
        plugins=('mmaib.models.segmentation',),
        optional=True,
    ),
    Package(
        'mmpretrain',
        {'onedl-mmpretrain': ('1.3', '1.4'), 'mmpretrain': ('1.2', '1.3')},
        plugins=(
            'mmaib.models.classification',
            'mmaib.datasets.classification',
        ),
        optional=True,
    ),
    # of detectors of mmdet, for which mmaib needs no plug-ins
    Package('mmrotate', {'onedl-mmrotate': ('1.2', '1.3')}, optional=True),
)


def package(module: str) -> Package:
    """The entry of an import name."""
    return next(p for p in PACKAGES if p.module == module)


def installed_libraries() -> list[Package]:
    """The installed base libraries that mmaib has plug-ins for."""
    return [p for p in PACKAGES if p.plugins and p.installed()]


def missing_plugins() -> list[str]:
    """One sentence for each library folder whose base library is not
    installed."""
    return [
        f'{p.plugins[0]} needs {p.module}, which is not installed: '
        f'{p.advice()}'
        for p in PACKAGES
        if p.plugins and not p.installed()
    ]


def register_config_sources() -> None:
    """Let ``_base_ = 'mmaib::...'``, and ``'mmseg::...'`` under any of its
    distributions, resolve. Call it before ``Config.fromfile``; mmaib's
    commands do.

    MMEngine finds a package's configs by a table of distribution names that
    knows neither mmaib nor the maintained base libraries.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmaib'] = 'mmaib'
    for p in PACKAGES:
        found = p.distribution()
        if found and p.module in MODULE2PACKAGE:
            MODULE2PACKAGE[p.module] = found[0]


def config_name(name: str) -> str:
    """A name ``'mmdet::gn+ws/...'`` as MMEngine reads it: with a folder of
    letters and digits first, for it takes no other."""
    package, _, path = name.partition('::')
    folder, slash, _ = path.partition('/')
    if not slash or re.fullmatch(r'\w*', folder):
        return name
    return f'{package}::_base_/../{path}'


def report() -> tuple[str, bool]:
    """What ``mmaib doctor`` prints, and whether all is well."""
    lines = [f'mmaib {mmaib.__version__}']
    problems: list[str] = []
    for p in PACKAGES:
        name, version = p.distribution() or ('-', 'not installed')
        lines.append(f'{p.module:<11} {version:<16} {name}')
        if p.installed() or not p.optional:
            problems += filter(None, [p.problem()])
    if not installed_libraries():
        problems += missing_plugins()
    if package('mmcv').installed():
        try:
            import mmcv.ops  # noqa: F401

            lines.append('mmcv.ops    compiled ops load')
        except ImportError as error:
            lines.append(f'mmcv.ops    do not load: {error}')
            problems.append(
                'mmcv is there without its compiled ops: '
                'CFLAGS=-g0 pip install --no-build-isolation '
                '--force-reinstall --no-deps '
                f'{next(iter(package("mmcv").distributions))}'
            )
    lines += [f'! {problem}' for problem in problems]
    return '\n'.join(lines), not problems
