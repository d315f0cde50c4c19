"""Loss, forward and backward, against the usual way to write it in PyTorch.

    python -m benchmarks.bench_losses [--device cuda] [--repeats 15] [--threads 1]

The peer's way is written from its description: SSIM with one 11x11 window in two dimensions and
five convolutions (both means, both squares, the product), gradients as differences padded back to
the image's size, the mean absolute error apart. Both compute the same loss; the runs take turns,
so that a busy machine slows both.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from densedepth.depth_range import NYU
from densedepth.losses import DepthLoss


def peer_loss(pred: Tensor, target: Tensor, window: Tensor, max_target: float) -> Tensor:
    """Compute the paper's loss with a two-dimensional window; (b, 1, h, w) -> scalar."""
    mean_x, mean_y = functional.conv2d(pred, window), functional.conv2d(target, window)
    variance_x = functional.conv2d(pred * pred, window) - mean_x**2
    variance_y = functional.conv2d(target * target, window) - mean_y**2
    covariance = functional.conv2d(pred * target, window) - mean_x * mean_y
    c1, c2 = (0.01 * max_target) ** 2, (0.03 * max_target) ** 2
    ssim = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    ssim_loss = torch.clamp((1 - ssim.mean(dim=(1, 2, 3))) / 2, 0, 1).mean()
    dx_pred, dy_pred = peer_gradients(pred)
    dx_target, dy_target = peer_gradients(target)
    gradient_loss = torch.mean((dx_pred - dx_target).abs() + (dy_pred - dy_target).abs())
    return 0.1 * functional.l1_loss(pred, target) + gradient_loss + ssim_loss


def peer_gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Compute forward differences of the image's size, zero in the last column and row."""
    dx = image[..., :, 1:] - image[..., :, :-1]
    dy = image[..., 1:, :] - image[..., :-1, :]
    dx = torch.cat((dx, torch.zeros_like(image[..., :, :1])), dim=-1)
    dy = torch.cat((dy, torch.zeros_like(image[..., :1, :])), dim=-2)
    return dx, dy


def peer_window(device: torch.device) -> Tensor:
    """Make the 11x11 Gaussian window of sigma 1.5 pixels."""
    offset_px = torch.arange(11, device=device) - 5.0
    row = torch.exp(-(offset_px**2) / (2 * 1.5**2))
    window = row[:, None] * row[None, :]
    return (window / window.sum())[None, None]


def timed_s(compute: Callable[[Tensor], Tensor], pred: Tensor) -> float:
    """Time one forward and backward pass, in seconds."""
    leaf = pred.clone().requires_grad_()
    synchronise = torch.cuda.synchronize if pred.is_cuda else lambda: None
    synchronise()
    start_s = time.perf_counter()
    compute(leaf).backward()
    synchronise()
    return time.perf_counter() - start_s


def measure(device: torch.device, repeats: int, batch: int, height: int, width: int) -> list[str]:
    """Time the peer's loss and ours, dense and masked; gives the table's lines."""
    generator = torch.Generator().manual_seed(0)
    depth_m = torch.rand(batch, 1, height, width, generator=generator) * 9 + 0.7
    target = NYU.to_target(depth_m).to(device)
    noise = torch.randn(target.shape, generator=generator).to(device)
    pred = target * (1 + 0.2 * noise)
    valid = (torch.rand(target.shape, generator=generator) > 0.2).to(device)
    window = peer_window(device)
    loss = DepthLoss(NYU.max_target).to(device)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "peer: 2-D window, 5 convolutions": lambda p: peer_loss(p, target, window, NYU.max_target),
        "DepthLoss": lambda p: loss(p, target).total,
        "DepthLoss, 20 % holes": lambda p: loss(p, target, valid).total,
    }
    peer_value, own_value = (compute(pred).item() for compute in list(ways.values())[:2])
    if abs(peer_value - own_value) > 1e-4 * peer_value:
        raise RuntimeError(f"the losses differ: peer {peer_value}, ours {own_value}")
    times_s: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 2):
        for name, compute in ways.items():
            elapsed_s = timed_s(compute, pred)
            if repeat >= 2:  # the first runs warm up
                times_s[name].append(elapsed_s)
    medians_ms = {name: 1e3 * statistics.median(times) for name, times in times_s.items()}
    peer_ms = next(iter(medians_ms.values()))
    lines = [f"{'way':<34} {'median ms':>9} {'best ms':>9} {'times faster':>12}"]
    lines += [
        f"{name:<34} {ms:>9.2f} {1e3 * min(times_s[name]):>9.2f} {peer_ms / ms:>12.1f}"
        for name, ms in medians_ms.items()
    ]
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    what = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else (f"CPU, {torch.get_num_threads()} threads")
    )
    print(
        f"loss forward + backward, {args.batch}x1x{args.height}x{args.width} float32, {what}, "
        f"{args.repeats} runs, torch {torch.__version__}"
    )
    print("\n".join(measure(device, args.repeats, args.batch, args.height, args.width)))


if __name__ == "__main__":
    main()
