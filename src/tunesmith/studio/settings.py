"""What the environment says about the pages: address, port, name and password. An open door is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core import env
from tunesmith.core.errors import ServingError
from tunesmith.core.net import is_loopback, listen_on

FIRST_PORT = 7860
_PORTS_TRIED = 100
_MAX_PORT = 65535
_LEAST_TOKEN = 12


@dataclass(frozen=True, slots=True)
class PageSettings:
    """One page server's settings.

    Attributes:
        host: address to listen on.
        port: None takes the first free one from 7860 on, 0 any free one.
        share: ask Gradio for a public address.
        root_path: what a proxy in front strips from paths.
        auth: (name, password) pairs; empty: nobody is asked.
        token: what the first address must carry as `?token=`; empty: nothing.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    root_path: str = ""
    auth: tuple[tuple[str, str], ...] = ()
    token: str = ""

    @classmethod
    def from_env(cls, **said: Any) -> PageSettings:
        """Reads `GRADIO_SERVER_NAME` and its kin.

        Args:
            **said: attributes that the command line gives; None leaves them to the environment.

        Raises:
            EnvironmentValueError: the port is no number.
            ServingError: others could use the page and no password is asked for.
        """
        settings = cls(
            host=env.get("GRADIO_SERVER_NAME", "127.0.0.1") or "",
            port=env.whole_number("GRADIO_SERVER_PORT", 0) if env.get("GRADIO_SERVER_PORT") else None,
            share=env.switch("GRADIO_SHARE"),
            root_path=(env.get("GRADIO_ROOT_PATH") or "").rstrip("/"),
            auth=pairs_of(env.words("GRADIO_AUTH")),
            token=env.get("TUNESMITH_PAGE_TOKEN", "") or "",
        )
        settings = replace(settings, **{name: value for name, value in said.items() if value is not None})
        settings.check()
        return settings

    def check(self) -> None:
        """Refuses what would leave the page open.

        Raises:
            ServingError: says which variable, and what to set.
        """
        if self.port is not None and self.port > _MAX_PORT:
            raise ServingError(f"GRADIO_SERVER_PORT: {self.port} is no port; ports end at {_MAX_PORT}")
        if self.token and len(self.token) < _LEAST_TOKEN:
            raise ServingError(f"the page's token is too short: at least {_LEAST_TOKEN} characters")
        if self.auth or self.token:
            return
        if self.share:
            raise ServingError("GRADIO_SHARE makes the page public: set GRADIO_AUTH=name:password, too")
        if not is_loopback(self.host):
            raise ServingError(
                f"GRADIO_SERVER_NAME={self.host} can be reached by others and GRADIO_AUTH is not set: anyone could use "
                "the model; set GRADIO_AUTH=name:password (--auth) or TUNESMITH_PAGE_TOKEN (--token), or leave "
                "GRADIO_SERVER_NAME at 127.0.0.1"
            )

    def free_port(self) -> int:
        """A port to listen on.

        Raises:
            ServingError: the one that was asked for is taken, or none is free.
        """
        wanted = [self.port] if self.port is not None else list(range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED))
        reason: OSError | None = None
        for port in wanted:
            try:
                with listen_on(self.host, port) as listening:
                    listening.listen()
                    return int(listening.getsockname()[1])
            except OSError as error:
                reason = error
        raise ServingError(
            f"cannot listen on {self.host}:{wanted[0]}: {reason}; choose with GRADIO_SERVER_NAME and GRADIO_SERVER_PORT"
        )


def pairs_of(words: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(name, password) of each `name:password`.

    Raises:
        ServingError: one of them is none.
    """
    pairs = [word.partition(":") for word in words]
    if not all(name and password for name, _, password in pairs):
        raise ServingError("GRADIO_AUTH: write name:password, several with commas between")
    return tuple((name, password) for name, _, password in pairs)
