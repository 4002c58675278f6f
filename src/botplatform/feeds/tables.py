"""Files as rows of named columns: CSV (plain, gzip or zip) and Parquet, and where in the file a row stands."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeAlias

from botplatform.errors import FeedError, MissingExtra

__all__ = ["CsvTable", "ParquetTable", "Row", "Table", "open_table"]

Row: TypeAlias = Sequence[Any]
"""Cells: text from CSV, typed values from Parquet."""

_DAMAGE: Final = (csv.Error, EOFError, OSError, zlib.error, zipfile.BadZipFile)
_BATCH_ROWS: Final = 4_096


class Table(Protocol):
    """A file of rows; reading starts again with each call of `rows`."""

    path: Path
    columns: tuple[str, ...]
    """Names as `column_name` writes them; empty when the file has no header."""
    sample: Row
    """The first row."""
    total: int
    """How far `position` goes: bytes of a CSV file as it lies on disk, rows of a Parquet file."""

    def rows(self) -> Generator[Row, None, None]:
        """Read all rows; raise `FeedError` where the file is damaged."""

    @property
    def position(self) -> int:
        """How far reading has come, from 0 to `total`."""

    def place(self) -> str:
        """Name the row that was read last, for people: `file.csv:17`."""


def column_name(name: str) -> str:
    """Bring a column's name into its usual spelling: lower case, `_` for blanks."""
    return name.strip().strip('"').lower().replace(" ", "_")


def open_table(path: Path) -> Table:
    """Open a recording, recognised by its first bytes and not by its name; raise `FeedError` when that fails."""
    try:
        with path.open("rb") as raw:
            magic = raw.read(4)
    except FileNotFoundError as e:
        raise FeedError(f"the recording {path} does not exist: check the path") from e
    except OSError as e:
        raise FeedError(f"the recording {path} cannot be read: {e.strerror or e}") from e
    if not magic:
        raise FeedError(f"the recording {path} is empty: it has to have rows of market data")
    return ParquetTable(path) if magic == b"PAR1" else CsvTable(path, magic)


class CsvTable:
    """A CSV file with or without a header; comma, semicolon or tab; plain, gzip, or alone in a zip archive."""

    def __init__(self, path: Path, magic: bytes) -> None:
        self.path = path
        self.total = path.stat().st_size
        self._magic = magic
        self._raw: BinaryIO | None = None
        self._reader: Any = None
        self._delimiter = ","
        self._header = 0
        first, second = self._first_rows()
        if not any(_numeric(cell) for cell in first):
            self.columns: tuple[str, ...] = tuple(map(column_name, first))
            self._header = 1
            if second is None:
                raise FeedError(f"the recording {path} has a header and no rows: it has to have rows of market data")
            self.sample: Row = second
        else:
            self.columns = ()
            self.sample = first

    def rows(self) -> Generator[Row, None, None]:
        """Read all rows but the header; blank lines come as empty rows."""
        with ExitStack() as stack:
            try:
                lines = self._open(stack)
                self._reader = reader = csv.reader(lines, delimiter=self._delimiter)
                for _ in range(self._header):
                    next(row for row in reader if row)
                yield from reader
            except _DAMAGE as e:
                raise FeedError(f"{self.place()}: the recording cannot be read beyond this line: {e}") from e

    @property
    def position(self) -> int:
        """Bytes of the file on disk that were read so far."""
        if self._raw is None:
            return 0
        return self.total if self._raw.closed else self._raw.tell()

    def place(self) -> str:
        """Name the line that was read last."""
        return f"{self.path}:{0 if self._reader is None else self._reader.line_num}"

    def _open(self, stack: ExitStack) -> io.TextIOWrapper:
        self._raw = raw = stack.enter_context(self.path.open("rb"))
        stream: Any = raw
        if self._magic[:2] == b"\x1f\x8b":
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw))
        elif self._magic == b"PK\x03\x04":
            archive = stack.enter_context(zipfile.ZipFile(raw))
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise FeedError(
                    f"the recording {self.path} has {len(names)} files in it: a zip has to have one CSV file"
                )
            stream = stack.enter_context(archive.open(names[0]))
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="backslashreplace", newline="")
        return stack.enter_context(text)

    def _first_rows(self) -> tuple[list[str], list[str] | None]:
        with ExitStack() as stack:
            try:
                lines = self._open(stack)
                line = next((line for line in lines if line.strip()), "")
                self._delimiter = max(",;\t", key=line.count)
                rows = (row for row in csv.reader(chain((line,), lines), delimiter=self._delimiter) if row)
                first, second = next(rows, None), next(rows, None)
            except _DAMAGE as e:
                raise FeedError(f"the recording {self.path} cannot be read: {e}") from e
        self._raw = None
        if not first or not any(map(str.strip, first)):
            raise FeedError(f"the recording {self.path} is empty: it has to have rows of market data")
        return first, second


class ParquetTable:
    """A Parquet file; needs the extra `parquet`. Times become whole nanoseconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parquet: Any = _pyarrow_parquet()
        self.position = 0
        with self._parquet_file() as file:
            self.total: int = file.metadata.num_rows
            self.columns: tuple[str, ...] = tuple(column_name(str(name)) for name in file.schema_arrow.names)
        if not self.total:
            raise FeedError(f"the recording {path} has columns and no rows: it has to have rows of market data")
        reading = self.rows()
        self.sample: Row = next(iter(reading))
        reading.close()
        self.position = 0

    def rows(self) -> Generator[Row, None, None]:
        """Read all rows, some thousand at a time."""
        self.position = 0
        with self._parquet_file() as file:
            batches = file.iter_batches(batch_size=_BATCH_ROWS)
            while (cells := self._next_cells(batches)) is not None:
                for row in zip(*cells, strict=True):
                    self.position += 1
                    yield row

    def place(self) -> str:
        """Name the row that was read last."""
        return f"{self.path}: row {self.position}"

    def _parquet_file(self) -> Any:
        try:
            return self._parquet.ParquetFile(self.path)
        except (OSError, ValueError) as e:
            raise FeedError(f"the recording {self.path} is a damaged Parquet file: {_first_sentence(e)}") from e

    def _next_cells(self, batches: Iterator[Any]) -> list[list[Any]] | None:
        try:
            batch = next(batches, None)
            return None if batch is None else [_cells(column) for column in batch.columns]
        except (OSError, ValueError) as e:
            raise FeedError(
                f"{self.place()}: the recording cannot be read beyond this row: {_first_sentence(e)}"
            ) from e


def _pyarrow_parquet() -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415  # an extra, wanted for this kind of file only
    except ImportError as e:
        raise MissingExtra("reading Parquet needs pyarrow: pip install 'botplatform[parquet]'") from e
    return parquet


def _cells(column: Any) -> list[Any]:
    import pyarrow as pa  # noqa: PLC0415  # an extra, wanted for this kind of file only

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    elif pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    cells: list[Any] = column.to_pylist()
    return cells


def _first_sentence(error: Exception) -> str:
    return str(error).partition(". ")[0].rstrip(".")


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.strip().lower() not in ("nan", "inf", "infinity")
