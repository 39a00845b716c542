"""Small benchmarks of our own in the three layouts that users have: MMLU's, C-Eval's and CMMLU's."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

MMLU = {
    "pond_life": {"name": "pond life", "category": "STEM"},
    "tea_history": {"name": "tea history", "category": "Humanities"},
    "village_council": {"name": "village councils", "category": "Social Sciences"},
}
CHINESE = {
    "pond_life": {"name": "池塘生物", "category": "STEM"},
    "tea_history": {"name": "茶的历史", "category": "Humanities"},
    "kite_making": {"name": "风筝制作", "category": "Other"},
}


def rows(subject: str, split: str, answers: str) -> list[list[str]]:
    """Question, four choices and the right letter; the texts are of different lengths."""
    return [
        [f"{subject} {split} question {i}{' indeed' * (i % 3)}?", *(f"thing {i}{c}" for c in "wxyz"), letter]
        for i, letter in enumerate(answers)
    ]


def as_csv(table: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(table)
    return out.getvalue()


def write_mmlu(root: Path, answers: str = "ABCDA", zipped: bool = True) -> Path:
    """`data/dev/SUBJECT_dev.csv` and so on without a header, in mmlu.zip."""
    files = {
        f"data/{split}/{subject}_{split}.csv": as_csv(rows(subject, split, "ABCDB" if split == "dev" else answers))
        for subject in MMLU
        for split in ("dev", "val", "test")
    }
    return _write(root / "mmlu", MMLU, files, zipped)


def write_ceval(root: Path) -> Path:
    """With a header and explanations; the answers of the test split are not published."""
    files = {}
    for subject in CHINESE:
        for split, answers in (("dev", "ABCDB"), ("val", "BBAD"), ("test", "ABC")):
            head = ["id", "question", "A", "B", "C", "D"]
            table: list[list[str]] = [[str(i), *row] for i, row in enumerate(rows(subject, split, answers))]
            if split == "test":
                table = [row[:-1] for row in table]
            else:
                head += ["answer"]
            if split == "dev":
                head += ["explanation"]
                table = [[*row, "因为, 所以"] for row in table]
            files[f"{split}/{subject}_{split}.csv"] = as_csv([head, *table])
    return _write(root / "ceval", CHINESE, files, zipped=False)


def write_cmmlu(root: Path) -> Path:
    """`test/SUBJECT.csv` with a header that begins with a column without a name."""
    head = ["", "Question", "A", "B", "C", "D", "Answer"]
    files = {}
    for subject in CHINESE:
        for split, answers in (("dev", "DCBAD"), ("test", "ABCDAB")):
            table = [[str(i), *row] for i, row in enumerate(rows(subject, split, answers))]
            files[f"{split}/{subject}.csv"] = as_csv([head, *table])
    return _write(root / "cmmlu", CHINESE, files, zipped=True)


def _write(folder: Path, mapping: dict[str, dict[str, str]], files: dict[str, str], zipped: bool) -> Path:
    folder.mkdir(parents=True)
    (folder / "mapping.json").write_text(json.dumps(mapping, ensure_ascii=False), encoding="utf-8")
    if zipped:
        with zipfile.ZipFile(folder / f"{folder.name}.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return folder
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return folder
