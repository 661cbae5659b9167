"""Put configs and tools into the wheel as ``mmaib/.mim``, where MMEngine
looks for them (``_base_ = 'mmaib::...'``)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CARRIED = ('configs', 'tools', 'model-index.yml')
# the laboratory and what sets a checkout up
LEFT_OUT = (
    'experiments', 'demo.py', 'benchmark.py', 'setup_env.sh', 'activate',
    '__pycache__',
)  # fmt: skip


class BuildWithMim(build_py):
    def run(self) -> None:
        super().run()
        editable = getattr(self, 'editable_mode', False)
        base = ROOT if editable else Path(self.build_lib)
        mim = base / 'mmaib' / '.mim'
        mim.mkdir(parents=True, exist_ok=True)
        for name in CARRIED:
            source, target = ROOT / name, mim / name
            if editable:
                if not target.exists():
                    target.symlink_to(source)
            elif source.is_dir():
                shutil.copytree(
                    source,
                    target,
                    dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns(*LEFT_OUT),
                )
            else:
                shutil.copy(source, target)


setup(cmdclass={'build_py': BuildWithMim})
