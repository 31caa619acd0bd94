"""Writes the table of docs/promises.md from the laws of tests/funcvi/promises.py.

python tools/promises.py
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.funcvi.promises import table  # noqa: E402

if __name__ == "__main__":
    page = ROOT / "docs" / "promises.md"
    old = re.compile(r"\| family \| range \|\n(\|.*\n)*")
    page.write_text(old.sub(lambda _: table(), page.read_text(), count=1))
