"""Row -> Conversation, Preference, Feedback or Text: pure functions of one row, one file a family of layouts."""

from tunesmith.data.formats.convert import convert, stage_problems
from tunesmith.data.formats.detect import detect
from tunesmith.data.formats.fields import RowError

__all__ = ["RowError", "convert", "detect", "stage_problems"]
