"""Zip packages of XML, which docx and epub files are: with a limit, so that a small file cannot fill the memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from tunesmith.core.errors import DataError, Problem

MOST_BYTES = 300_000_000
"""Unpacked bytes of one part; a long novel has two million."""


class Package:
    """The parts of a zip file.

    Args:
        archive: the open file.
        place: its name in messages.
    """

    def __init__(self, archive: zipfile.ZipFile, place: str) -> None:
        self._archive = archive
        self._place = place
        self.names = frozenset(archive.namelist())

    def read(self, name: str) -> bytes:
        """One part.

        Raises:
            DataError: it is missing, broken, encrypted, or unpacks to more than MOST_BYTES.
        """
        try:
            with self._archive.open(name) as part:
                data = part.read(MOST_BYTES + 1)
        except KeyError as error:
            raise self.fault(f"its part {name} is missing") from error
        except (zipfile.BadZipFile, RuntimeError, OSError, EOFError) as error:
            raise self.fault(f"its part {name} cannot be read: {error}") from error
        if len(data) > MOST_BYTES:
            raise self.fault(f"its part {name} unpacks to more than {MOST_BYTES // 10**6} MB")
        return data

    def xml(self, name: str) -> ElementTree.Element:
        """One part as XML.

        Raises:
            DataError: as `read`, or it is no XML.
        """
        try:
            return ElementTree.fromstring(self.read(name))  # expat limits what entities may grow to
        except ElementTree.ParseError as error:
            raise self.fault(f"its part {name} is broken XML: {error}") from error

    def fault(self, what: str) -> DataError:
        """An error about this file."""
        return DataError([Problem(what, self._place, "save it anew from the program that made it, or as txt")])


@contextmanager
def opened(data: bytes, place: str) -> Iterator[Package]:
    """The package in these bytes.

    Raises:
        DataError: no zip file.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        what = f"the file is broken, or not what its name says: {error}"
        raise DataError([Problem(what, place, "save it anew, or as txt")]) from error
    with archive:
        yield Package(archive, place)
