"""The pages below `docs/` that are made of the code: `python -m botplatform.docs` writes them, a test compares them."""

from botplatform.docs.pages import pages

__all__ = ["pages"]
