"""BotPlatform: a trading platform whose engines talk through events alone."""


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: that costs more than the rest of the start."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # see above

        return version("botplatform")
    raise AttributeError(name)
