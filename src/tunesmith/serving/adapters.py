"""Adapters that come and go while the server runs; folders outside of API_ADAPTER_DIR are never opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.serving.errors import bad_request
from tunesmith.serving.service import Service

_logger = get_logger(__name__)


def find_adapter(path: str, allowed: Path) -> Path:
    """The folder of an adapter.

    The message is the same for a folder outside and for one that is not there: it must not tell what is on the disk.

    Raises:
        ApiError: it is not a folder with an adapter below `allowed`, links followed.
    """
    refusal = bad_request(
        f"path: {path!r} is no folder with an adapter below {str(allowed)!r} (API_ADAPTER_DIR)", "path", "bad_path"
    )
    try:
        root, found = allowed.resolve(), Path(path).resolve()
        is_inside = found.is_relative_to(root)
        if not is_inside and not Path(path).is_absolute():
            found = (root / path).resolve()
            is_inside = found.is_relative_to(root)
        if not is_inside or not (found / "adapter_config.json").is_file():
            raise refusal
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a null byte, a name that is too long
        raise refusal from error
    return found


async def put_adapter(service: Service, name: str, path: str) -> tuple[dict[str, Any], bool]:
    """Loads or replaces an adapter.

    Returns:
        (its entry in the list, whether it is new).

    Raises:
        ApiError: the path is not allowed, the name is the configuration's, or the adapter does not fit.
    """
    is_new = not service.names.is_taken(name)
    folder = find_adapter(path, service.settings.adapter_dir)
    try:
        if is_new:
            await service.on_engine(lambda engine: engine.add_adapter(name, folder))
        else:
            await service.on_engine(lambda engine: engine.replace_adapter(name, folder))
    except TunesmithError as error:
        raise bad_request(str(error), "path") from error
    _logger.info("adapter %s %s", name, "loaded" if is_new else "replaced")
    return service.names.add(name, path), is_new


async def drop_adapter(service: Service, name: str) -> None:
    """Drops an adapter.

    Raises:
        ApiError: there is none of that name, or it is the configuration's.
    """
    engine_name = service.names.droppable(name)
    service.names.drop(name)  # first of all: nobody may ask for it any more
    try:
        await service.on_engine(lambda engine: engine.remove_adapter(engine_name))
    except TunesmithError as error:
        raise bad_request(str(error), "name") from error
    _logger.info("adapter %s dropped", name)
