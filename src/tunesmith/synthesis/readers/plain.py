"""Text files: the characters exactly as they stand, line ends and all."""

from __future__ import annotations

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger

_logger = get_logger(__name__)
_MARKS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_HAN = range(0x4E00, 0xA000)


def read(data: bytes, place: str, encoding: str | None = None) -> str:
    """The text of a file; a mark of its encoding stays as the first character.

    Raises:
        DataError: no text, or of an encoding that must be named.
    """
    if encoding:
        return _decoded(data, encoding, place)
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _decoded(data, name, place)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _chinese(data, place)
    if "\0" in text:
        raise DataError([Problem("this is no text: it holds zero bytes", place, _known_types())])
    return text


def _decoded(data: bytes, encoding: str, place: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        fix = "such as utf-8, gb18030, big5, utf-16, cp1252"
        raise DataError([Problem(f"text_encoding {encoding!r} is not known", place, fix)]) from error
    except UnicodeDecodeError as error:
        what = f"not {encoding} text: {error.reason} at byte {error.start}"
        raise DataError([Problem(what, place, "set text_encoding, or save the file as UTF-8")]) from error


def _chinese(data: bytes, place: str) -> str:
    """What most Chinese texts that are not UTF-8 are; taken only where it reads as Chinese."""
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError as error:
        what = f"neither UTF-8 nor GB18030 text (byte {error.start})"
        raise DataError([Problem(what, place, "set text_encoding: big5, cp1252 or what it is")]) from error
    n_han = sum(ord(character) in _HAN for character in text)
    n_latin = sum(character.isascii() and character.isalpha() for character in text)
    if "\0" in text or n_han < n_latin:
        what = "not UTF-8 text, and it does not read as Chinese (GB18030) either"
        raise DataError([Problem(what, place, "set text_encoding: cp1252, latin-1 or what it is")])
    _logger.info("%s is not UTF-8 and is read as GB18030; text_encoding names another", place)
    return text


def _known_types() -> str:
    return "long texts are txt, md, html, docx, pdf and epub files"
