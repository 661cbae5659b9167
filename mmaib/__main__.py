"""``python -m mmaib``: versions, compiled ops, and what is missing."""

import sys

from mmaib.compat import report

text, healthy = report()
print(text)
sys.exit(not healthy)
