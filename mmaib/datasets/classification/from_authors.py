from __future__ import annotations

import os.path as osp
from collections.abc import Sequence


class FromAuthors:
    """A data set that is read from its authors' own files: errors about them
    say where they come from.

    Attributes:
        PAGE: the authors' download page.
        COMMAND: what brings a file to where it is looked for; ``{name}``
            stands for the file's name.
    """

    PAGE: str
    COMMAND: str
    data_root: str

    def path(self, *names: str) -> str:
        """A file of the data set.

        Raises:
            FileNotFoundError: if it is not there.
        """
        path = osp.join(self.data_root, *names)
        if not osp.isfile(path):
            raise self.missing(path)
        return path

    def missing(self, path: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"data_root='{self.data_root}': '{path}' does not exist (seen "
            f"from '{osp.abspath('.')}'). {self._advice(path)}"
        )

    def wrong(self, path: str, fault: str) -> ValueError:
        """An error about a file that is there; ``fault``: what came and what
        fits."""
        return ValueError(
            f"data_root='{self.data_root}': '{path}' {fault}. "
            f'{self._advice(path)}'
        )

    def check_files(self, paths: Sequence[str]) -> None:
        """Refuse images that are not there, before a training asks for them.

        Raises:
            FileNotFoundError: counting them and naming the first.
        """
        gone = [path for path in paths if not osp.isfile(path)]
        if gone:
            raise FileNotFoundError(
                f'{len(gone)} of {len(paths)} images are not there: '
                f'{self.missing(gone[0])}'
            )

    def _advice(self, path: str) -> str:
        command = self.COMMAND.format(name=osp.basename(path))
        return f'Its download page is {self.PAGE}; {command}'
