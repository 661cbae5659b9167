"""``python -m mmaib``: versions, compiled ops, and what is missing;
``python -m mmaib wrap``: attention in a host's config."""

import sys

if sys.argv[1:2] == ['wrap']:
    from mmaib.cli.wrap import main

    sys.exit(main(sys.argv[2:]))

from mmaib.compat import report

text, healthy = report()
print(text)
sys.exit(not healthy)
