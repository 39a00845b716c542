"""What the environment says about the pages: address, port, name and password. An open door is refused."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.core import env
from tunesmith.core.errors import ServingError
from tunesmith.core.net import is_loopback, listen_on

FIRST_PORT = 7860
_PORTS_TRIED = 100
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class PageSettings:
    """One page server's settings.

    Attributes:
        host: address to listen on.
        port: None takes the first free one from 7860 on, 0 any free one.
        share: ask Gradio for a public address.
        root_path: what a proxy in front strips from paths.
        auth: (name, password) pairs; empty: nobody is asked.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    root_path: str = ""
    auth: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_env(cls) -> PageSettings:
        """Reads `GRADIO_SERVER_NAME` and its kin.

        Raises:
            EnvironmentValueError: the port is no number.
            ServingError: others could use the page and no password is asked for.
        """
        settings = cls(
            host=env.get("GRADIO_SERVER_NAME", "127.0.0.1") or "",
            port=env.whole_number("GRADIO_SERVER_PORT", 0) if env.get("GRADIO_SERVER_PORT") else None,
            share=env.switch("GRADIO_SHARE"),
            root_path=(env.get("GRADIO_ROOT_PATH") or "").rstrip("/"),
            auth=tuple(_pair(word) for word in env.words("GRADIO_AUTH")),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Refuses what would leave the page open.

        Raises:
            ServingError: says which variable, and what to set.
        """
        if self.port is not None and self.port > _MAX_PORT:
            raise ServingError(f"GRADIO_SERVER_PORT: {self.port} is no port; ports end at {_MAX_PORT}")
        if self.auth:
            return
        if self.share:
            raise ServingError("GRADIO_SHARE makes the page public: set GRADIO_AUTH=name:password, too")
        if not is_loopback(self.host):
            raise ServingError(
                f"GRADIO_SERVER_NAME={self.host} can be reached by others and GRADIO_AUTH is not set: anyone could use "
                "the model; set GRADIO_AUTH=name:password, or leave GRADIO_SERVER_NAME at 127.0.0.1"
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


def _pair(word: str) -> tuple[str, str]:
    name, _, password = word.partition(":")
    if not name or not password:
        raise ServingError("GRADIO_AUTH: write name:password, several with commas between")
    return name, password
