"""BotPlatform: a trading platform whose engines talk through events alone."""

from importlib.metadata import version

__version__ = version("botplatform")
