"""The export tab of the studio."""

from __future__ import annotations

from tunesmith.studio.shell import Studio


def export_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    studio.markdown("shell.comes")
