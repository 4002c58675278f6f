"""Write what is made of the code: `python -m botplatform.docs [FOLDER]`.

With a folder, the pages into it; without, the pages into `docs`, the files of the chart, and, where Helm is installed, the
plain manifests.
"""

from __future__ import annotations

import sys
from pathlib import Path

from botplatform.docs import chart, k8s
from botplatform.docs.pages import pages


def main(folder: Path) -> None:
    """Write every page into a folder, and print where."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        main(Path("docs"))
        chart.main(Path("charts/botplatform"))
        if k8s.find_helm() is not None:
            k8s.main(Path())
