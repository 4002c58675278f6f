"""A memory of millions of keys: exact, 16 bytes each, and quick for what was seen lately."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

__all__ = ["Known"]

RECENT: Final = 131_072
"""Keys that a lookup finds at once, at least; twice as many at most."""
PER_BUCKET: Final = 65_536


class Known:
    """Where each key was seen first.

    Keys are 64-bit hashes, of which two of ten million are the same once in 400,000 audits.
    """

    def __init__(self, recent: int = RECENT) -> None:
        self._keys = array("q")
        self._sequences = array("Q")
        self._recent = recent
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._keys)

    def add(self, key: int, sequence: int) -> int:
        """Remember a key; return where it was seen before, 0 for nowhere lately: see `settle`."""
        before = self._young.get(key) or self._old.get(key, 0)
        if before:
            return before
        young = self._young
        young[key] = sequence
        self._keys.append(key)
        self._sequences.append(sequence)
        if len(young) >= self._recent:
            self._old, self._young = young, {}
        return 0

    def find(self, key: int) -> int:
        """Return where a key was seen lately; 0 for one that has to be asked for in `settle`."""
        return self._young.get(key) or self._old.get(key, 0)

    def settle(self, asked: array[int]) -> tuple[list[tuple[int, int]], array[int]]:
        """Look at all keys ever seen.

        Returns those seen twice that `add` did not notice, as pairs of sequences, and where each of the `asked`
        keys was seen first, 0 for nowhere. Takes a second or two for ten million.
        """
        found = array("Q", bytes(8 * len(asked)))
        doubled: list[tuple[int, int]] = []
        if len(self._keys) <= self._recent and not asked:
            return doubled, found
        count = max(1, max(len(self._keys), len(asked)) // PER_BUCKET)
        questions = _buckets(asked, count)
        for number, members in enumerate(_buckets(self._keys, count)):
            doubled += self._twice(members)
            wanted = next(questions)
            if wanted:
                first = self._first(members)
                for index in wanted:
                    found[index] = first.get(asked[index], 0)
            del members
            assert number < count
        return sorted(doubled, key=lambda pair: pair[1]), found

    def _twice(self, members: array[int]) -> Iterator[tuple[int, int]]:
        keys = self._keys
        if len({keys[index] for index in members}) == len(members):
            return
        first: dict[int, int] = {}
        for index in members:
            sequence = self._sequences[index]
            before = first.setdefault(keys[index], sequence)
            if before != sequence:
                yield before, sequence

    def _first(self, members: array[int]) -> dict[int, int]:
        return {self._keys[index]: self._sequences[index] for index in reversed(members)}


def _buckets(keys: array[int], count: int) -> Iterator[array[int]]:
    """Deal the places of keys out so that equal keys meet in one bucket."""
    buckets = [array("I") for _ in range(count)]
    for index, key in enumerate(keys):
        buckets[key % count].append(index)
    return iter(buckets)
