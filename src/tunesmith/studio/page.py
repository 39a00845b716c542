"""Pages put together and served until a signal: `run_chat` is `webchat`, `run_studio` is `webui`."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tunesmith.core import env
from tunesmith.core.errors import Interrupted, ServingError
from tunesmith.core.lazy import lookup
from tunesmith.core.log import get_logger
from tunesmith.studio.login import Login, server_secret
from tunesmith.studio.settings import PageSettings

if TYPE_CHECKING:
    import gradio as gr

    from tunesmith.config.schema import RunConfig
    from tunesmith.studio.seat import ModelSeat
    from tunesmith.studio.workspace import Workspace

TABS = {
    "train": "tunesmith.studio.train_tab:train_tab",
    "evaluate": "tunesmith.studio.evaluate_tab:evaluate_tab",
    "chat": "tunesmith.studio.chat_tab:chat_tab",
    "export": "tunesmith.studio.export_tab:export_tab",
    "data": "tunesmith.studio.data_tab:data_tab",
    "runs": "tunesmith.studio.runs_tab:runs_tab",
}
"""Tab -> what lays it out, given the `Studio`."""
SECRET_FILE = "page.key"
"""In `TUNESMITH_HOME`: what logins are signed with."""
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "Noto Sans Mono", "monospace"]
_CSS = """
.chat-bar { align-items: center; }
.chat-note { color: var(--body-text-color-subdued); font-size: var(--text-sm); min-height: 1.5em; }
.tab-container button.selected { color: var(--primary-600) !important; }
.dark .tab-container button.selected { color: var(--primary-300) !important; }
.gradio-container :is(input, textarea, select, button, summary, [tabindex]):focus-visible {
  outline: 2px solid var(--color-accent) !important; outline-offset: 1px; }
.block label > span, .block span[data-testid=block-info] { overflow-wrap: anywhere; }
footer { display: none !important; }
.toast-wrap { top: auto !important; bottom: 16px; max-height: 60vh; overflow-y: auto; } /* not over buttons */
"""
_COLORS = {
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_cancel_background_fill": "#b91c1c",
    "button_cancel_background_fill_hover": "#991b1b",
    "input_placeholder_color": "#566070",
    "input_placeholder_color_dark": "#aab4c2",
}
"""Where Gradio's own colours leave words hard to read: contrast below 4.5."""
_logger = get_logger(__name__)


def run_chat(config: RunConfig) -> None:
    """Loads the model and shows a chat with it until SIGINT or SIGTERM.

    Raises:
        TunesmithError: the address cannot be had, or the model cannot be loaded.
        Interrupted: a signal ended it, as it should.
    """
    settings = PageSettings.from_env()
    port = settings.free_port()  # before the model: a port in use must not cost its loading
    from tunesmith.studio.seat import ModelSeat

    seat = ModelSeat()
    seat.load(config)
    from tunesmith.studio.head import chat_head

    serve(chat_page(seat, config), settings, port, chat_head())
    seat.unload()


def chat_page(seat: ModelSeat, config: RunConfig) -> gr.Blocks:
    """A page with nothing but a chat; Load loads what the configuration names."""
    gradio = _gradio()
    from tunesmith.studio.chat import CHAT_PAGE, chat
    from tunesmith.studio.kept import keep_fields

    with gradio.Blocks(title="Tunesmith", fill_width=True, analytics_enabled=False) as page:
        chat(page, seat, lambda: (config, None))
        keep_fields(page, CHAT_PAGE)
    return page


def run_studio(settings: PageSettings) -> None:
    """Shows the studio over the workspace until SIGINT or SIGTERM.

    Raises:
        TunesmithError: the address cannot be had, or there is no workspace.
        Interrupted: a signal ended it, as it should.
    """
    from tunesmith.studio.workspace import Workspace

    settings.check()
    workspace = Workspace.from_env()
    os.chdir(workspace.root)  # paths in configurations start from the workspace, as for `tunesmith runs`
    page = studio_page(workspace)
    from tunesmith.studio.head import studio_head

    serve(page, settings, settings.free_port(), studio_head())


def studio_page(workspace: Workspace) -> gr.Blocks:
    """The page with all tabs."""
    gradio = _gradio()
    from tunesmith.studio.shell import Studio
    from tunesmith.studio.words import LANGUAGES

    with gradio.Blocks(title="Tunesmith", fill_width=True, analytics_enabled=False) as page:
        with gradio.Row(equal_height=True, elem_classes="studio-top"):
            gradio.Markdown(f"# Tunesmith\n`{workspace.root}`", elem_id="studio-title")
            language = gradio.Radio(
                [(name, code) for code, name in LANGUAGES.items()],
                value="en",
                container=False,
                elem_id="studio-language",
                interactive=True,
            )
        studio = Studio(page, workspace, language)
        with gradio.Tabs(elem_id="studio-tabs"):
            for name in TABS:
                with studio.worded(gradio.Tab(id=name, elem_id=f"tab-{name}"), label=f"tab.{name}"):
                    lookup(TABS, name)(studio)
        studio.connect()
    return page


def serve(page: gr.Blocks, settings: PageSettings, port: int, head: str = "") -> None:
    """Serves a page until a signal.

    Args:
        page: what is shown.
        settings: of the server.
        port: to listen on.
        head: what else stands in the page's head.

    Raises:
        Interrupted: with the signal's number.
    """
    caught: list[int] = []
    woken = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        woken.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        url = launch(page, settings, port, head)
        _logger.info("the page is at %s; Ctrl-C stops", url)
        woken.wait()
    finally:
        page.close(verbose=False)
        for number, handler in before.items():
            signal.signal(number, handler)
    raise Interrupted("the page has stopped", caught[0])


def launch(page: gr.Blocks, settings: PageSettings, port: int, head: str = "") -> str:
    """Starts serving in a thread.

    Returns:
        The page's address; the public one where it is shared.

    Raises:
        ServingError: the address was taken meanwhile, or there is no public one to be had.
    """
    gradio = _gradio()
    from starlette.middleware import Middleware

    from tunesmith.studio.gate import MOST_BODY, PageGate

    gate = Middleware(PageGate, settings=settings, login=_login(settings))
    env.exempt_from_proxy("localhost", "127.0.0.1", settings.host)  # Gradio asks itself whether it runs
    # Fonts of this machine, so that nothing is fetched from others.
    theme = gradio.themes.Default(primary_hue="indigo", font=_FONTS, font_mono=_MONO).set(**_COLORS)
    options: dict[str, Any] = {"theme": theme, "css": _CSS, "footer_links": [], "run_history": False, "head": head}
    try:
        _, local, public = page.launch(
            server_name=settings.host.strip("[]"),
            server_port=port,
            share=settings.share,
            root_path=settings.root_path,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            app_kwargs={"middleware": [gate], "docs_url": None, "redoc_url": None},
            max_file_size=MOST_BODY,
            **options,
        )
    except OSError as error:
        raise ServingError(f"cannot listen on {settings.host}:{port}: {error}") from error
    except ValueError as error:  # Gradio asks its own page once it is up and gives it a few seconds
        page.close(verbose=False)
        raise ServingError(f"{settings.host}:{port} did not answer in time; is the machine very busy?") from error
    if settings.share and not public:
        page.close(verbose=False)
        raise ServingError("GRADIO_SHARE: Gradio's servers gave no public address; is there a network?")
    return str(public or local)


def _login(settings: PageSettings) -> Login | None:
    """Who may come in. A login is good for this kind of page over this workspace, whatever the port."""
    if not settings.auth:
        return None
    return Login(dict(settings.auth), server_secret(env.home() / SECRET_FILE), str(Path.cwd()))


def _gradio() -> Any:
    env.set_default("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    return gradio
