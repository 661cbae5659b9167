"""The pages of this folder as a site: `make docs`."""

import os
import re
import sys
from pathlib import Path

import mmaib

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from config_reference import reference  # noqa: E402

project = 'mmaib'
release = mmaib.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.mathjax',
              'sphinx.ext.napoleon']  # fmt: skip
html_theme = 'furo'
html_title = f'mmaib {release}'
html_show_copyright = False
exclude_patterns = ['results/*/*']
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3
napoleon_custom_sections = [('Shape', 'notes_style')]
napoleon_use_ivar = True
# the base libraries' classes, and what is missing without a GPU
autodoc_inherit_docstrings = False
autodoc_typehints = 'none'


def outside(app, docname, source):
    """Links that leave this folder name the file in the checkout, which the
    site does not have."""
    here = Path(docname).parent

    def named(found):
        target = os.path.normpath(here / found[2])
        if not target.startswith('..') and target != 'results':
            return found[0]
        return f'{found[1]} (`{target.removeprefix("../")}`)'

    source[0] = re.sub(
        r'\[([^\]]+)\]\(([^)#:]+)(?:#[^)]*)?\)', named, source[0]
    )


def setup(app):
    made = HERE / '_made'
    made.mkdir(exist_ok=True)
    (made / 'config_reference.md').write_text(reference())
    app.connect('source-read', outside)
