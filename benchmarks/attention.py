"""SmoothGrad: the paper's loop over images against `lib.attention.attribution`.

    python -m benchmarks.attention [--images 8] [--copies 25] [--side 128] [--rounds 3]
        [--trunk efficientnet_lite0] [--threads 2] [--device cpu] [--only bf16] [--small]

Every variant runs in a process of its own (so that peak memory is its own), after a warm-up. On
a shared machine read the column "a CPU second": other people's load hardly moves it, and with
`--threads 1` it does not count threads that wait for each other. Goals: at least 2 times the
loop's images a second on a CPU, 20 times on a GPU; there also the noise, which the CPU draws, must
keep up (all cores draw it ahead), so give it `--images 200 --side 227 --trunk bn_inception`.
`--small` only shows that everything runs.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.attention.attribution import attribute
from lib.models.embedder import Embedder

VARIANTS: dict[str, dict | None] = {
    "the paper's loop": None,
    "+ no weight gradients": {"batch": 25, "channels_last": False},
    "+ channels_last": {"batch": 25},
    "  batch 10": {"batch": 10},
    "  batch 100": {"batch": 100},
    "+ bf16": {"batch": 25, "precision": "bf16"},
    "  batch 10, bf16": {"batch": 10, "precision": "bf16"},
    "  batch 100, bf16": {"batch": 100, "precision": "bf16"},
    "  batch 250, bf16": {"batch": 250, "precision": "bf16"},
}
GOALS = {"cpu": 2, "cuda": 20}
SMALL = {"images": 2, "copies": 2, "side": 64, "rounds": 1, "only": "+"}


def paper_loop(net: nn.Module, images: Tensor, black: Tensor, copies: int, noise: float) -> Tensor:
    """One image at a time, its copies as one batch, f32, gradients of the weights computed too.

    The one change: the noise comes from a seed per image, so that both maps can be compared.
    """
    reference, maps = net(black).detach(), []
    for seed, image in enumerate(images):
        rows = image.repeat(copies, 1, 1, 1)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.stack([torch.randn(image.shape, generator=generator) for _ in rows])
        rows += drawn.to(rows) * noise * (rows.max() - rows.min())
        rows.requires_grad_()
        (net(rows) - reference).norm(dim=1).mean().backward()
        maps.append(rows.grad.mean(dim=1).abs().sum(dim=0))
    return torch.stack(maps)


def clock(work: Callable[[], Tensor], device: str) -> tuple[Tensor, float, float]:
    """The result, wall seconds and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work().cpu()  # waits for the device
    return result, time.perf_counter() - wall, time.process_time() - cpu


def run(variant: str, arguments: argparse.Namespace, answer: multiprocessing.Queue) -> None:
    """Measure one variant and put (maps, best wall, best CPU, peak memory in MB)."""
    torch.set_num_threads(arguments.threads)
    carried = arguments.trunk == "efficientnet_lite0"  # its weights come in a package
    net = Embedder(arguments.trunk, pretrained=carried).eval().to(arguments.device)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(arguments.images, 3, arguments.side, arguments.side, generator=generator)
    images, black = images.to(arguments.device), torch.full_like(images[:1], -0.99)
    options = VARIANTS[variant]

    def work(count: int = arguments.images) -> Tensor:
        if options is None:
            return paper_loop(net, images[:count], black, arguments.copies, 0.15)
        settings = {"copies": arguments.copies, **options}
        return attribute("smoothgrad", net, images[:count], black=black, **settings)

    work(1)
    rounds = [clock(work, arguments.device) for _ in range(arguments.rounds)]
    if arguments.device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    else:
        peak = torch.cuda.max_memory_allocated() / 2**20
    best = [min(round_[place] for round_ in rounds) for place in (1, 2)]
    answer.put((rounds[0][0].numpy(), *best, peak))


def measure(variant: str, arguments: argparse.Namespace) -> tuple[Tensor, float, float, float]:
    """`run` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=run, args=(variant, arguments, answer))
    process.start()
    maps, *numbers = answer.get(timeout=1800)
    process.join()
    return torch.from_numpy(maps), *numbers


def main() -> None:
    """Print one line a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--copies", type=int, default=25)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="beside the loop, variants with this in a name")
    parser.add_argument(
        "--trunk", default="efficientnet_lite0", help="a name of lib/models/trunks.py"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run?")
    arguments = parser.parse_args()
    if arguments.small:
        vars(arguments).update(SMALL)
    print(f"{vars(arguments)}\n{'':24}images/s  ratio   a CPU second  ratio   peak MB  correlation")
    first, best = None, 0.0
    chosen = [name for name in VARIANTS if VARIANTS[name] is None or arguments.only in name]
    for variant in chosen:
        maps, wall, cpu, peak = measure(variant, arguments)
        speed, work = arguments.images / wall, arguments.images / cpu
        first = first or (maps, speed, work)
        best = max(best, speed / first[1])
        alike = torch.corrcoef(torch.stack([first[0].flatten(), maps.flatten()]))[0, 1]
        print(
            f"{variant:24}{speed:8.2f}{speed / first[1]:7.2f}{work:15.2f}{work / first[2]:7.2f}"
            f"{peak:10.0f}{alike:13.5f}",
            flush=True,
        )
    print(f"best {best:.1f} times the loop; goal {GOALS[arguments.device.partition(':')[0]]}")


if __name__ == "__main__":
    main()
