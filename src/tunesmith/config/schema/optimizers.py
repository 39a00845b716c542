"""Keys of optimizers that save memory or learn otherwise, and of tracking with SwanLab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Galore(Group):
    """Gradients in a low-rank space."""

    TITLE: ClassVar[str] = "GaLore"

    use_galore: bool = key(False, "Keep optimizer states in a low-rank space of the gradient.")
    galore_target: tuple[str, ...] = key(("all",), "Modules it is used on: all linear layers, or names.")
    galore_rank: int = key(16, "Rank of the space.", ge=1)
    galore_update_interval: int = key(200, "Steps between two choices of the space.", ge=1)
    galore_scale: float = key(2.0, "Scale of its updates.", gt=0)
    galore_proj_type: str = key(
        "std", "Side of the projection.", choices=("std", "reverse_std", "right", "left", "full")
    )
    galore_layerwise: bool = key(False, "Update each layer during the backward pass.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Apollo(Group):
    """Scaled gradients in a random space."""

    TITLE: ClassVar[str] = "APOLLO"

    use_apollo: bool = key(False, "Estimate Adam's step sizes in a small random space.")
    apollo_target: tuple[str, ...] = key(("all",), "Modules it is used on: all linear layers, or names.")
    apollo_rank: int = key(16, "Rank of the space.", ge=1)
    apollo_update_interval: int = key(200, "Steps between two choices of the space.", ge=1)
    apollo_scale: float = key(32.0, "Scale of its updates.", gt=0)
    apollo_proj: str = key("random", "How the space is chosen.", choices=("svd", "random"))
    apollo_proj_type: str = key("std", "Side of the projection.", choices=("std", "right", "left"))
    apollo_scale_type: str = key("channel", "One scale a channel or one a tensor.", choices=("channel", "tensor"))
    apollo_layerwise: bool = key(False, "Update each layer during the backward pass.")
    apollo_scale_front: bool = key(False, "Limit the growth of updates before scaling.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Badam(Group):
    """Block by block."""

    TITLE: ClassVar[str] = "BAdam"

    use_badam: bool = key(False, "Train one block of layers at a time.")
    badam_mode: str = key("layer", "Blocks of layers, or a share of all weights.", choices=("layer", "ratio"))
    badam_start_block: int | None = key(None, "Block to start with.", ge=0)
    badam_switch_mode: str | None = key(
        "ascending", "Order of the blocks.", choices=("ascending", "descending", "random", "fixed")
    )
    badam_switch_interval: int | None = key(50, "Steps on one block; -1 never goes on.", ge=-1)
    badam_update_ratio: float = key(0.05, "Share of weights in ratio mode.", gt=0, le=1)
    badam_mask_mode: str = key("adjacent", "How that share lies.", choices=("adjacent", "scatter"))
    badam_verbose: int = key(0, "How much it prints: 0, 1, 2.", ge=0, le=2)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class OtherOptimizers(Group):
    """Switches of single optimizers."""

    TITLE: ClassVar[str] = "other optimizers"

    use_adam_mini: bool = key(False, "Adam with one step size a block of weights.")
    use_muon: bool = key(False, "Orthogonalised updates for matrices.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Swanlab(Group):
    """SwanLab beyond `report_to: swanlab`."""

    TITLE: ClassVar[str] = "SwanLab"
    NOT_YET: ClassVar[str] = "settings of SwanLab; report_to: swanlab works"

    use_swanlab: bool = key(False, "Send metrics to SwanLab with the settings below.")
    swanlab_project: str | None = key("llamafactory", "Project on SwanLab.")
    swanlab_workspace: str | None = key(None, "Workspace on SwanLab.")
    swanlab_run_name: str | None = key(None, "Name of the run on SwanLab.")
    swanlab_mode: str = key("cloud", "Send, or keep on this machine.", choices=("cloud", "local"))
    swanlab_api_key: str | None = key(None, "Key of SwanLab.", secret=True)
    swanlab_logdir: str | None = key(None, "Folder of SwanLab's logs.")
    swanlab_lark_webhook_url: str | None = key(None, "Lark address that is told when a run ends.", secret=True)
    swanlab_lark_secret: str | None = key(None, "Secret of that address.", secret=True)
