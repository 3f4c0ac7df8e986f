"""bf16 where the hardware multiplies it, float32 where it would only be imitated."""

from functools import cache

import torch

from lib.progress import say


@cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 (AVX-512 BF16, AMX, or ARM's): most do not."""
    found = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has for name, has in found.items() if "bf16" in name)


@cache
def used(asked: str, kind: str) -> str:
    """The precision that `asked` ("bf16" or "f32") becomes on a device of `kind` ("cpu", "cuda").

    A processor without bf16 imitates it: a training step takes eight times as long as in float32.
    """
    if asked == "bf16" and kind == "cpu" and not cpu_has_bf16():
        say("This processor does not multiply bf16: float32 is used, which moves the last digits.")
        return "f32"
    return asked


def autocast(where: torch.device, asked: str) -> torch.autocast:
    """The context in which a network runs on `where` in the precision that was asked for."""
    return torch.autocast(where.type, torch.bfloat16, enabled=used(asked, where.type) == "bf16")
