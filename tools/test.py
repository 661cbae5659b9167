"""Evaluate a checkpoint, as the tools of MMDetection, MMSegmentation and
MMPretrain do; `mmaib test` is the same."""

import sys

from mmaib.cli.main import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]], 'test.py'))
