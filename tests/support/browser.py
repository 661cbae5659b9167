"""A page as Chromium shows it."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason='no Chromium in PATH'
)
WATCHER = """<script>
window.seenErrors = [];
addEventListener('error', (event) => window.seenErrors.push(event.message));
</script>"""


def visit(page, visitor, folder, width=1400):
    """What a visitor, JavaScript that fills ``seen``, sees of a page once it
    is loaded, with its errors."""
    script = f"""<script>
    addEventListener('load', () => {{
      const seen = {{errors: window.seenErrors}};
      {visitor}
      seen.wider = document.documentElement.scrollWidth > innerWidth;
      document.body.innerHTML = '<pre></pre>';
      document.body.firstChild.textContent = JSON.stringify(seen);
    }});
    </script>"""
    page = page.replace('<head>', f'<head>{WATCHER}')
    path = folder / 'visited.html'
    path.write_text(page.replace('</body>', f'{script}</body>'))
    done = subprocess.run(
        [
            CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
            '--disable-dev-shm-usage',
            f'--user-data-dir={folder / "profile"}', '--dump-dom',
            f'--window-size={width},900', '--enable-logging=stderr',
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    found = re.findall(r'<pre>(\{.*\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    assert 'CONSOLE' not in done.stderr
    return json.loads(unescape(found[0]))
