"""Repeated rows and leaks, each with the places of both rows."""

from __future__ import annotations

from tunesmith.core.types import Conversation, Feedback, Message, Preference, Source, Text
from tunesmith.data.checks.alike import Texts, find_leaks, find_repeats

LONG = "Ships enter the harbour of Port Ellery at high tide, when the sandbar lies deep enough under water"


def chat(row, asked, answer, system="", file="f"):
    first = (Message("system", system),) if system else ()
    return Conversation((*first, Message("user", asked), Message("assistant", answer)), source=Source(file, row))


def texts(*examples):
    found = Texts()
    for example in examples:
        found.add(example)
    return found


def rows(matches):
    return [(pair.row.row, pair.like.row) for pair in matches.pairs]


def test_exact_and_near_repeats_name_both_rows():
    others = chat(3, "When?", LONG + "!"), chat(4, "Who are you", "A fox")
    exact, near = find_repeats(texts(chat(1, "When?", LONG), chat(2, "When?", LONG), *others))
    assert (exact.count, rows(exact)) == (1, [(2, 1)])
    assert (near.count, rows(near)) == (1, [(3, 1)])
    assert 0.8 < near.pairs[0].similarity < 1


def test_a_long_system_text_does_not_make_rows_alike():
    exact, near = find_repeats(
        texts(chat(1, "Hi", "A fox runs", LONG * 3), chat(2, "Who?", "The dog sleeps", LONG * 3))
    )
    assert exact.count == near.count == 0
    exact, near = find_repeats(
        texts(chat(1, "Hi there", "A fox runs", "one"), chat(2, "Hi there", "A fox runs", "two"))
    )
    assert (exact.count, near.count) == (0, 1)


def test_a_row_that_was_drawn_twice_repeats_nothing():
    row = chat(1, "When?", LONG)
    exact, near = find_repeats(texts(row, row, chat(1, "When?", LONG)))
    assert exact.count == near.count == 0


def test_the_other_label_is_another_row():
    good, bad = (Feedback(chat(row, "When?", LONG), row == 1, Source("f", row)) for row in (1, 2))
    assert [found.count for found in find_repeats(texts(good, bad))] == [0, 0]


def test_pairs_and_texts_are_compared_whole():
    prompt = Conversation((Message("user", "When?"),))
    first, second = (
        Preference(prompt, Message("assistant", LONG), Message("assistant", text), Source("f", row))
        for row, text in enumerate(("never", "never"), start=1)
    )
    assert rows(find_repeats(texts(first, second))[0]) == [(2, 1)]
    assert rows(find_repeats(texts(Text(LONG, Source("f", 1)), Text(LONG + ".", Source("f", 2))))[1]) == [(2, 1)]


def test_leaks_count_each_row_in_its_strongest_kind():
    training = texts(chat(1, "When?", LONG), chat(2, "Who are you?", "A fox"), chat(3, "Where?", "Here"))
    evaluation = texts(
        chat(1, "When?", LONG, file="e"),
        chat(2, "When?", LONG.replace("deep", "low"), file="e"),
        chat(3, "Who are you?", "Somebody else entirely", file="e"),
        chat(4, "Something new", "A new answer", file="e"),
    )
    leaks = find_leaks(evaluation, training)
    assert {kind: rows(found) for kind, found in leaks.items()} == {
        "exact": [(1, 1)],
        "near": [(2, 1)],
        "prompt": [(3, 2)],
    }


def test_parts_of_a_set_keep_what_is_compared():
    whole = texts(*[chat(row, f"Question {row}", LONG * row) for row in range(1, 5)])
    part = whole.take([1, 3])
    part.extend(whole.take([0]))
    assert [source.row for source in part.sources] == [2, 4, 1]
    assert find_leaks(part, whole)["exact"].count == 3
