"""A reward of one's own: `reward_funcs: examples/extras/grpo/short_answers.py:score`."""


def score(completions: list[str]) -> list[float]:
    """1 for an answer of one sentence, less for each sentence more, 0 for an empty one."""
    sentences = [text.count(".") + text.count("!") + text.count("?") for text in completions]
    return [1 / max(count, 1) if text.strip() else 0.0 for text, count in zip(completions, sentences, strict=True)]
