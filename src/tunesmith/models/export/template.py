"""The chat template of an exported folder: as jinja in the tokenizer and as Go in the Modelfile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from tunesmith.core import log
from tunesmith.data.auto_template import AutoTemplate
from tunesmith.data.jinja import jinja_of
from tunesmith.data.ollama import ollama_template
from tunesmith.data.settings import token_names
from tunesmith.data.template import Template
from tunesmith.models.export.modelfile import modelfile

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_SYSTEM, _USER, _ANSWER, _AGAIN = "\ue001S", "\ue001U", "\ue001A", "\ue001B"
_logger = log.get_logger(__name__)


def set_chat_template(
    tokenizer: PreTrainedTokenizerBase, template: Template | AutoTemplate, compat: bool = False
) -> None:
    """Makes the folder's chat template write what was trained.

    The tokenizer's own stays when it writes the same for plain conversations (it may know more, such as tools); where
    it writes other text, a server would serve other tokens than were trained, so ours takes its place.
    """
    if isinstance(template, AutoTemplate):
        return
    ours = jinja_of(template, compat)
    if tokenizer.chat_template and not template.replace_jinja_template:
        differs = any(
            _render(tokenizer, chat, template=ours) != _render(tokenizer, chat) for chat in _conversations(True)
        )
        if not differs:
            return
        _logger.info("the tokenizer's chat template writes other text than template: %s; replaced", template.name)
    tokenizer.chat_template = ours


def _conversations(with_system: bool) -> list[list[dict[str, str]]]:
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    long = [user, answer, {"role": "user", "content": _AGAIN}]
    system = [{"role": "system", "content": _SYSTEM}]
    return [[user], long, *([[*system, user], [*system, *long]] if with_system else [])]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    chat: list[dict[str, str]],
    *,
    template: str | None = None,
    generation: bool = True,
) -> str | None:
    """The text of a conversation; None where the template refuses it."""
    try:
        return str(
            tokenizer.apply_chat_template(
                chat, chat_template=template, tokenize=False, add_generation_prompt=generation
            )
        )
    except Exception:  # jinja raises whatever the template's author chose
        return None


def write_modelfile(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    template: Template | AutoTemplate,
    end_ids: tuple[int, ...],
    context: int | None,
) -> str:
    """The Modelfile's text.

    Args:
        config: for `default_system`.
        tokenizer: with the chat template that the folder gets.
        template: as trained.
        end_ids: every end token; each becomes a stop text.
        context: the model's context in tokens.
    """
    if isinstance(template, AutoTemplate):
        go, fallback = _derive(tokenizer), ""
        if go is None:
            _logger.warning(
                "Modelfile: this chat template cannot be written in Ollama's language; TEMPLATE is left out"
            )
    else:
        go, fallback = ollama_template(template, token_names(tokenizer, template)), template.default_system
    system = config.default_system if config.default_system is not None else fallback
    stops = [str(name) for name in tokenizer.convert_ids_to_tokens(list(end_ids))]
    return modelfile(template=go or "", system=system, stops=stops, num_ctx=context)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a chat template writes around contents."""

    before_system: str
    after_system: str
    instead_of_system: str
    before_user: str
    after_user: str
    after_answer: str

    def go(self) -> str:
        system = f"{self.before_system}{{{{ .System }}}}{self.after_system}"
        default = f"{{{{ else }}}}{self.instead_of_system}" if self.instead_of_system else ""
        return (
            f"{{{{ if .System }}}}{system}{default}{{{{ end }}}}{{{{ range .Messages }}}}"
            f'{{{{ if eq .Role "user" }}}}{self.before_user}{{{{ .Content }}}}{self.after_user}'
            f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{self.after_answer}{{{{ end }}}}{{{{ end }}}}'
        )

    def text(self, chat: list[dict[str, str]]) -> str:
        """What `go` writes for a conversation."""
        parts = [] if chat[0]["role"] == "system" else [self.instead_of_system]
        around = {
            "system": (self.before_system, self.after_system),
            "user": (self.before_user, self.after_user),
            "assistant": ("", self.after_answer),
        }
        for message in chat:
            before, after = around[message["role"]]
            parts.append(before + message["content"] + after)
        return "".join(parts)


def _derive(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Ollama's form of the tokenizer's own template, read off its renderings; None unless it gives the same text."""
    user, long, with_system, long_system = _conversations(True)
    alone, ended = _render(tokenizer, user), _render(tokenizer, long[:2], generation=False)
    several, full = _render(tokenizer, long), _render(tokenizer, with_system)
    if alone is None or ended is None or several is None:
        return None
    lead, _, after_user = alone.partition(_USER)
    after_answer = ended.partition(_ANSWER)[2]
    before_user = several.partition(_ANSWER)[2].partition(_AGAIN)[0].removeprefix(after_answer)
    if not lead.endswith(before_user):
        return None
    instead = lead.removesuffix(before_user) if before_user else lead
    before_system, after_system = "", ""
    if full is not None:
        before_system, _, rest = full.partition(_SYSTEM)
        after_system = rest.partition(_USER)[0].removesuffix(before_user) if before_user else rest.partition(_USER)[0]
    frame = _Frame(before_system, after_system, instead, before_user, after_user, after_answer)
    chats = [user, long, *([with_system, long_system] if full is not None else [])]
    if any(frame.text(chat) != _render(tokenizer, chat) for chat in chats):
        return None
    bos = tokenizer.bos_token or ""
    # Ollama writes bos by itself.
    starts = bool(bos) and frame.instead_of_system.startswith(bos) and frame.before_system.startswith(bos)
    if starts and not before_user.startswith(bos):
        cut = len(bos)
        frame = _Frame(before_system[cut:], after_system, instead[cut:], before_user, after_user, after_answer)
    return frame.go()
