"""What the environment says about the server: address, key, limits. Values that would leave it open are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.core import env
from tunesmith.core.errors import ServingError
from tunesmith.core.net import is_loopback

_MB = 1_000_000
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server's settings.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        api_key: what `Authorization: Bearer` must carry; None: no key is asked for, on a loopback address only.
        model_name: one more name for the configured model.
        is_verbose: write requests and answers to the log.
        root_path: what a proxy in front strips from paths.
        max_concurrent: answers that the engine works on at a time.
        max_queue: requests that may wait for one of those places; more are turned away with 429.
        max_body: bytes of a request's body.
        timeout: seconds that a request may wait and be answered in.
        cors_origins: web pages of these origins may call.
        adapter_dir: adapters are loaded from below this folder only.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    model_name: str | None = None
    is_verbose: bool = False
    root_path: str = ""
    max_concurrent: int = 16
    max_queue: int = 64
    max_body: int = 4 * _MB
    timeout: float = 600.0
    cors_origins: tuple[str, ...] = ()
    adapter_dir: Path = Path("saves")

    @classmethod
    def from_env(cls) -> ServerSettings:
        """Reads `API_HOST` and its kin.

        Raises:
            EnvironmentValueError: a number is none.
            ServingError: the settings contradict each other or would leave the server open.
        """
        settings = cls(
            host=env.get("API_HOST", "127.0.0.1") or "",
            port=env.whole_number("API_PORT", 8000),
            api_key=env.get("API_KEY"),
            model_name=env.get("API_MODEL_NAME"),
            is_verbose=env.switch("API_VERBOSE"),
            root_path=(env.get("FASTAPI_ROOT_PATH") or "").rstrip("/"),
            max_concurrent=env.whole_number("MAX_CONCURRENT", 16, least=1),
            max_queue=env.whole_number("API_MAX_QUEUE", 64),
            max_body=int(env.number("API_MAX_BODY_MB", 4, least=0.001) * _MB),
            timeout=env.number("API_TIMEOUT", 600, least=0.1),
            cors_origins=env.words("API_CORS_ORIGINS"),
            adapter_dir=Path(env.get("API_ADAPTER_DIR", "saves") or "").expanduser(),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Refuses what would leave the server open.

        Raises:
            ServingError: says which variable, and what to set.
        """
        if self.port > _MAX_PORT:
            raise ServingError(f"API_PORT: {self.port} is no port; ports end at {_MAX_PORT}")
        if self.root_path and not self.root_path.startswith("/"):
            raise ServingError(f"FASTAPI_ROOT_PATH: {self.root_path!r} must begin with /")
        if self.api_key is not None:
            if self.api_key != self.api_key.strip() or not self.api_key.isprintable():
                raise ServingError("API_KEY: a key has no blanks around it and no control characters")
            return
        if not is_loopback(self.host):
            raise ServingError(
                f"API_HOST={self.host} can be reached by others and API_KEY is not set: anyone could use the model; "
                "set API_KEY, or leave API_HOST at 127.0.0.1"
            )
        if "*" in self.cors_origins:
            raise ServingError("API_CORS_ORIGINS=* lets every web page use the model; set API_KEY, or name the origins")
