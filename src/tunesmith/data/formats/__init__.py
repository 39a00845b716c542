"""Row -> Conversation, Preference, Feedback or Text: pure functions of one row, one file a family of layouts."""

from tunesmith.data.formats.convert import KIND_OF_STAGE, convert, stage_problems
from tunesmith.data.formats.detect import detect
from tunesmith.data.formats.fields import RowError

__all__ = ["KIND_OF_STAGE", "RowError", "convert", "detect", "stage_problems"]
