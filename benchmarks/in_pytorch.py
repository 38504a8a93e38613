"""The six models in PyTorch, for a comparison of speed.

They start from our weights. TensorFlow pads a strided "same" convolution more on the right, PyTorch
more on the left; on images turned by half a turn, with kernels turned likewise, PyTorch's padding
computes what TensorFlow's does, without an extra copy. So the images come in turned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.workload import Workload

Parameters = Sequence[Tensor]  # in the order of our variables

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# --- The models -----------------------------------------------------------------------------------


def closed_form_kl(z_mean: Tensor, z_log_var: Tensor) -> Tensor:
    return -0.5 * torch.sum(1 + z_log_var - z_mean**2 - z_log_var.exp(), dim=1)


def mlp_vae(p: Parameters, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    w1, b1, mean_w, var_w, mean_b, var_b, w2, b2, _, w3, b3 = p
    x = x.flatten(1)
    h = torch.relu(torch.addmm(b1, x, w1))
    z_mean, z_log_var = torch.addmm(mean_b, h, mean_w), torch.addmm(var_b, h, var_w)
    z = z_mean + torch.sqrt(torch.exp(z_log_var)) * eps
    x_decoded = torch.addmm(b3, torch.relu(torch.addmm(b2, z, w2)), w3)
    return 0.5 * torch.sum((x_decoded - x) ** 2) + closed_form_kl(z_mean, z_log_var).mean()


def mlp_cvae(p: Parameters, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    w1, b1, mean_w, var_w, mean_b, var_b, w2, b2, _, w3, b3, y_w1, y_w2 = p
    x = x.flatten(1)
    h = torch.relu(torch.addmm(b1, torch.cat([x, y], 1), torch.cat([w1, y_w1])))
    z_mean, z_log_var = torch.addmm(mean_b, h, mean_w), torch.addmm(var_b, h, var_w)
    z = z_mean + torch.sqrt(torch.exp(z_log_var)) * eps
    h = torch.relu(torch.addmm(b2, torch.cat([z, y], 1), torch.cat([w2, y_w2])))
    x_decoded = torch.addmm(b3, h, w3)
    return 0.5 * torch.sum((x_decoded - x) ** 2) + closed_form_kl(z_mean, z_log_var).mean()


def rmsprop_vae(p: Parameters, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    w1, mean_w, var_w, w2, out_w, b1, mean_b, var_b, b2, out_b = p
    x = x.flatten(1)
    h = torch.tanh(torch.addmm(b1, x, w1))
    z_mean, z_log_var = torch.addmm(mean_b, h, mean_w), torch.addmm(var_b, h, var_w)
    z = z_mean + torch.exp(z_log_var / 2) * eps
    x_decoded = torch.sigmoid(torch.addmm(out_b, torch.tanh(torch.addmm(b2, z, w2)), out_w))
    likelihood = x * torch.log(1e-10 + x_decoded) + (1 - x) * torch.log(1e-10 + 1 - x_decoded)
    return torch.mean(-likelihood.sum(1) + closed_form_kl(z_mean, z_log_var))


def conv_vae(p: Parameters, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    h = F.relu(F.conv2d(x, p[0], p[1], stride=2, padding=1))
    h = F.relu(F.conv2d(h, p[2], p[3], stride=2, padding=1))
    h = F.relu(torch.addmm(p[5], h.flatten(1), p[4]))
    z_mean, z_log_var = torch.addmm(p[7], h, p[6]), torch.addmm(p[9], h, p[8])
    z = z_mean + torch.exp(z_log_var / 2) * eps
    h = F.relu(torch.addmm(p[11], z, p[10])).view(-1, 32, 7, 7)
    h = F.relu(F.conv_transpose2d(h, p[12], p[13], stride=2, padding=1, output_padding=1))
    h = F.relu(F.conv_transpose2d(h, p[14], p[15], stride=2, padding=1, output_padding=1))
    logits = F.conv_transpose2d(h, p[16], p[17], padding=1)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return cross_entropy / len(x) + closed_form_kl(z_mean, z_log_var).mean()


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    return -0.5 * torch.sum((z - mean) ** 2 * torch.exp(-log_var) + log_var, dim=1)


def elbo_cvae(p: Parameters, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    h = F.relu(F.conv2d(x.flip(2, 3), p[0], p[1], stride=2))  # "valid": needs no turning
    h = F.relu(F.conv2d(h, p[2], p[3], stride=2))
    z_mean, z_log_var = torch.addmm(p[5], h.flatten(1), p[4]).chunk(2, 1)
    z = z_mean + torch.exp(z_log_var * 0.5) * eps
    h = F.relu(torch.addmm(p[7], z, p[6])).view(-1, 32, 7, 7)
    h = F.relu(F.conv_transpose2d(h, p[8], p[9], stride=2, padding=1, output_padding=1))
    h = F.relu(F.conv_transpose2d(h, p[10], p[11], stride=2, padding=1, output_padding=1))
    logits = F.conv_transpose2d(h, p[12], p[13], padding=1)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    zero = torch.zeros_like(z)
    kl = log_normal(z, z_mean, z_log_var) - log_normal(z, zero, zero)
    return cross_entropy / len(x) + kl.mean()


def tfp_cvae(p: Parameters, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    h = x
    for i, stride in enumerate((1, 2, 1, 2)):
        h = F.leaky_relu(F.conv2d(h, p[2 * i], p[2 * i + 1], stride=stride, padding=2), 0.2)
    h = F.leaky_relu(F.conv2d(h, p[8], p[9]), 0.2).flatten(1)
    out = torch.addmm(p[11], h, p[10])
    z_mean, (a, b, c) = out[:, :2], out[:, 2:].unbind(1)
    s0, s1 = F.softplus(c) + 1e-5, F.softplus(a) + 1e-5  # the diagonal of scale_tril
    z = z_mean + torch.stack([s0 * eps[:, 0], b * eps[:, 0] + s1 * eps[:, 1]], 1)
    h = F.leaky_relu(F.conv_transpose2d(z[:, :, None, None], p[12], p[13]), 0.2)
    for i, stride in enumerate((1, 2, 1, 2, 1)):
        w, bias = p[14 + 2 * i], p[15 + 2 * i]
        h = F.conv_transpose2d(h, w, bias, stride=stride, padding=2, output_padding=stride - 1)
        h = F.leaky_relu(h, 0.2)
    q = torch.sigmoid(F.conv2d(h, p[24], p[25], padding=2)).clamp(1e-7, 1 - 1e-7)
    cross_entropy = -(x * torch.log(q + 1e-7) + (1 - x) * torch.log(1 - q + 1e-7)).sum()
    prior_mean = torch.addmm(p[29], torch.addmm(p[27], y, p[26]), p[28])
    log_posterior = -0.5 * (eps**2).sum(1) - torch.log(s0) - torch.log(s1)
    log_prior = -0.5 * ((z - prior_mean) ** 2).sum(1)
    return cross_entropy + 2 * (log_posterior - log_prior).mean()


# --- Initial weights and optimisers ---------------------------------------------------------------

TRANSPOSED = {"conv_vae": (12, 14, 16), "elbo_cvae": (8, 10, 12), "tfp_cvae": range(12, 24, 2)}
NOT_TURNED = {"elbo_cvae": (0, 2)}
FLATTENED = {"conv_vae": (4, 7, 64), "elbo_cvae": (4, 6, 64)}  # variable, side, channels
UNFLATTENED = {"conv_vae": (10, 11), "elbo_cvae": (6, 7)}  # to 7 x 7 x 32


def parameters(module: str, values: Sequence[np.ndarray]) -> list[Tensor]:
    """Our variables in PyTorch's layouts."""
    result = []
    for i, value in enumerate(values):
        if value.ndim == 4:
            turned = value if i in NOT_TURNED.get(module, ()) else value[::-1, ::-1]
            # Both are [height, width, a, b] -> [b, a, height, width]: a transposed kernel has its
            # outputs in `a`, and PyTorch has them second.
            value = turned.transpose(3, 2, 0, 1)
        elif i == FLATTENED.get(module, (None,))[0]:
            _, side, channels = FLATTENED[module]
            cube = value.reshape(side, side, channels, -1)
            cube = cube if module in NOT_TURNED else cube[::-1, ::-1]
            value = cube.transpose(2, 0, 1, 3).reshape(value.shape)
        elif i in UNFLATTENED.get(module, ()):
            cube = value.reshape(-1, 7, 7, 32)[:, ::-1, ::-1]
            value = cube.transpose(0, 3, 1, 2).reshape(value.shape)
        tensor = torch.tensor(np.ascontiguousarray(value), device=DEVICE, requires_grad=True)
        result.append(tensor)
    return result


def optimizer(module: str, parameters: list[Tensor], graph: bool) -> Any:
    """The document's optimiser; PyTorch's fused kernel where it has one. A CUDA graph can hold it
    if it keeps its step on the GPU."""
    if module == "conv_vae":
        return torch.optim.NAdam(
            parameters, 1e-3, eps=1e-7, momentum_decay=0.004, foreach=True, capturable=graph
        )
    if module == "rmsprop_vae":
        rmsprop = torch.optim.RMSprop(
            parameters, 1e-3, alpha=0.9, eps=1e-10, foreach=True, capturable=graph
        )
        for parameter in parameters:
            rmsprop.state[parameter] = {
                "step": torch.tensor(0.0, device=DEVICE if graph else "cpu"),
                "square_avg": torch.ones_like(parameter),
            }
        return rmsprop
    rate, eps = {"mlp_vae": (1e-3, 1e-8), "mlp_cvae": (1e-3, 1e-8), "elbo_cvae": (1e-4, 1e-7),
                 "tfp_cvae": (1e-3, 1e-7)}[module]  # fmt: skip
    return torch.optim.Adam(parameters, rate, eps=eps, fused=True, capturable=graph)


# --- The side -------------------------------------------------------------------------------------


def use_tf32(wanted: bool) -> None:
    """Chooses how a GPU multiplies float32 numbers."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted


def steps(work: Workload, variant: str) -> Callable[[int], list[float]]:
    """A function that makes n steps and returns their losses."""
    torch.set_flush_denormal(True)
    layout = torch.channels_last if variant == "channels-last" else torch.contiguous_format
    p = parameters(work.module, work.values)
    if variant == "channels-last":
        for i, parameter in enumerate(p):
            if parameter.ndim == 4:
                p[i] = parameter.detach().to(memory_format=layout).requires_grad_()
    loss = globals()[work.module]
    if variant == "compile":
        loss = torch.compile(loss)
    used = optimizer(work.module, p, graph=variant == "graph")
    batches = []
    for images, labels, eps in zip(work.images, work.labels, work.eps, strict=True):
        pixels = work.pixels(images)[:, None]
        if work.module in TRANSPOSED:
            pixels = pixels[:, :, ::-1, ::-1]
        x = torch.tensor(pixels.copy(), device=DEVICE)
        y = F.one_hot(torch.tensor(labels).long(), 10).float().to(DEVICE)
        batches.append((x.to(memory_format=layout), y, torch.tensor(eps, device=DEVICE)))

    def step(*batch: Tensor) -> Tensor:
        value = loss(p, *batch)
        used.zero_grad(set_to_none=True)
        value.backward()
        used.step()
        return value.detach()

    if variant == "graph":
        step = as_graph(step, batches[0], lambda: reset(p, work, used))
    position = 0

    def run(n: int) -> list[float]:
        nonlocal position
        losses = []
        for _ in range(n):
            losses.append(step(*batches[position % len(batches)]))
            position += 1
        return torch.stack(losses).tolist()

    return run


def as_graph(
    step: Callable[..., Tensor], batch: Sequence[Tensor], reset: Callable[[], None]
) -> Callable[..., Tensor]:
    """The step as a CUDA graph: its kernels are recorded once and started together.

    Args:
      step: makes one training step on a batch and returns its loss.
      batch: whose shapes all later batches must have.
      reset: undoes the steps that the recording needs.
    """
    inputs = [part.clone() for part in batch]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(*inputs)
    reset()

    def replay(*batch: Tensor) -> Tensor:
        for mine, part in zip(inputs, batch, strict=True):
            mine.copy_(part)
        graph.replay()
        return loss.clone()

    return replay


def reset(p: list[Tensor], work: Workload, used: Any) -> None:
    """Puts the first weights and the optimiser's first state back, in place."""
    with torch.no_grad():
        for parameter, value in zip(p, parameters(work.module, work.values), strict=True):
            parameter.copy_(value)
            for name, slot in used.state[parameter].items():
                slot.fill_(1.0 if name in ("square_avg", "mu_product") else 0.0)


def flops(work: Workload) -> int:
    """Floating-point operations of the matrix products and convolutions of a step."""
    run = steps(work, "eager")
    with FlopCounterMode(display=False) as counter:
        run(1)
    return counter.get_total_flops()
