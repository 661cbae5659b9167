from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import NamedTuple


class Source(NamedTuple):
    """Where the files of a data set come from, for errors about them.

    Attributes:
        page: the authors' download page.
        command: what brings a file to where it is looked for; ``{name}``
            stands for the file's name.
    """

    page: str
    command: str

    def missing(self, data_root: str, path: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"data_root='{data_root}': '{path}' does not exist (seen from "
            f"'{osp.abspath('.')}'). {self._advice(path)}"
        )

    def check_files(self, data_root: str, paths: Sequence[str]) -> None:
        """Refuse images that are not there, before a training asks for them.

        Raises:
            FileNotFoundError: counting them and naming the first.
        """
        gone = [path for path in paths if not osp.isfile(path)]
        if gone:
            raise FileNotFoundError(
                f'{len(gone)} of {len(paths)} images are not there: '
                f'{self.missing(data_root, gone[0])}'
            )

    def wrong(self, data_root: str, path: str, fault: str) -> ValueError:
        """An error about a file that is there.

        Args:
            data_root: field of the data set.
            path: of the file.
            fault: what came and what fits.
        """
        return ValueError(
            f"data_root='{data_root}': '{path}' {fault}. {self._advice(path)}"
        )

    def _advice(self, path: str) -> str:
        command = self.command.format(name=osp.basename(path))
        return f'Its download page is {self.page}; {command}'
