"""Write the pages that are made of the code: `python -m botplatform.docs [FOLDER]`, by default into `docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from botplatform.docs.pages import pages


def main(folder: Path) -> None:
    """Write every page into a folder, and print where."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs"))
