"""A real TorchScript file, as people have them."""

import io
import warnings

import torch


class Bright(torch.nn.Module):
    """Draws what is bright, in Hounsfield units."""

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return volume > 50


def torchscript() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # deprecated, and what many still have
        torch.jit.save(torch.jit.script(Bright()), buffer)
    return buffer.getvalue()
