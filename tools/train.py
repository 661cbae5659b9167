"""Train a config, as the tools of MMDetection, MMSegmentation and MMPretrain
do; `mmaib train` is the same."""

import sys

from mmaib.cli.main import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]], 'train.py'))
