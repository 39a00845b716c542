"""The Go template of an Ollama Modelfile: `.System` and `.Messages`, user and assistant turns."""

from __future__ import annotations

from tunesmith.data.settings import TokenNames
from tunesmith.data.template import BOS, CONTENT, EOS, Slot, Template, Token

_LAST = "{{ if eq (len (slice $.Messages $index)) 1 }}"


def ollama_template(template: Template, tokens: TokenNames | None = None) -> str:
    """The text that stands between the quotes of `TEMPLATE` in a Modelfile.

    Ollama writes bos by itself, so bos slots at the very start are left out. Blanks around texts stay, and what a
    family writes after the last answer is left out: Ollama's language has no word for either.

    Args:
        template: what to write.
        tokens: names for bos and eos slots; without them eos is the first stop word.
    """
    eos = (tokens.eos if tokens else None) or (template.stop_words[0] if template.stop_words else "")
    names = {BOS: (tokens.bos if tokens else None) or "", EOS: eos}
    prefix = _text([item for item in template.prefix if item != Token(BOS)], names, "")
    answer = _text(template.assistant, names, "{{ .Content }}")
    each = "{{ range .Messages }}"
    if template.kind == "system_in_first_user":
        starts = template.user[0] == Token(BOS)
        user = template.user[1:] if starts else template.user
        again = f"{{{{ if not $first }}}}{names[BOS]}{{{{ end }}}}" if starts else ""
        lead = "{{ if $first }}" + _system(template, names) + "{{ $first = false }}{{ end }}"
        head, body = "{{ $first := true }}" + prefix, again + _text(user, names, lead + "{{ .Content }}")
    elif template.kind == "system_in_last_user":
        each = "{{ range $index, $_ := .Messages }}"
        lead = f"{_LAST}{_system(template, names)}{{{{ end }}}}"
        head, body = prefix, _text(template.user, names, lead + "{{ .Content }}")
    else:
        head, body = prefix + _system(template, names), _text(template.user, names, "{{ .Content }}")
    return (
        f'{head}{each}{{{{ if eq .Role "user" }}}}{body}'
        f'{{{{ else if eq .Role "assistant" }}}}{answer}{{{{ end }}}}{{{{ end }}}}'
    )


def _system(template: Template, names: dict[str, str]) -> str:
    given = _text(template.system, names, "{{ $.System }}")
    if not template.default_system:
        return f"{{{{ if $.System }}}}{given}{{{{ end }}}}"
    default = _text(template.system, names, template.default_system)
    return f"{{{{ if $.System }}}}{given}{{{{ else }}}}{default}{{{{ end }}}}"


def _text(slot: Slot | list[str | Token], names: dict[str, str], content: str) -> str:
    parts = [names.get(item.name, item.name) if isinstance(item, Token) else item for item in slot]
    return "".join(parts).replace(CONTENT, content)
