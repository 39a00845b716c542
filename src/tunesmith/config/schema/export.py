"""Keys of `export` and `expand`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import Group, key

_QUANTISED = "exporting quantised weights"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Export(Group):
    """Merging and writing."""

    TITLE: ClassVar[str] = "export"
    COMMANDS: ClassVar[tuple[str, ...]] = ("export",)

    export_dir: str | None = key(None, "Folder for the merged model.")
    overwrite_export: bool = key(False, "Write into `export_dir` although it holds a model already.")
    export_size: int = key(5, "Largest size of one weight file, in GB.", ge=1, commands=("export", "expand"))
    num_expand: int | None = key(
        None, "Blocks that are added: one after each of that many groups of layers.", ge=1, commands=("expand",)
    )
    export_device: str = key(
        "cpu", "Where weights are merged: cpu, or auto for the GPU if there is one.", choices=("cpu", "auto")
    )
    export_legacy_format: bool = key(
        False, "Write pytorch_model.bin instead of safetensors. Only for old programs that read nothing else."
    )
    export_quantization_bit: int | None = key(
        None, "Quantise the exported weights to this many bits.", ge=2, le=8, not_yet=_QUANTISED
    )
    export_quantization_dataset: str | None = key(
        None, "Texts that the quantisation is calibrated on.", not_yet=_QUANTISED
    )
    export_quantization_nsamples: int = key(128, "Number of calibration texts.", ge=1, not_yet=_QUANTISED)
    export_quantization_maxlen: int = key(1024, "Length of a calibration text, in tokens.", ge=1, not_yet=_QUANTISED)
    export_hub_model_id: str | None = key(
        None, "Repository of the hub that the export is sent to.", not_yet="sending models to the hub"
    )
