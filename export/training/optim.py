"""The optimiser, the learning-rate schedule and the choice of precision."""

from __future__ import annotations

import math

import torch
from torch import nn

from export.config import OptimSettings, TransferSettings


def make_optimizer(
    model: nn.Module, config: OptimSettings, transfer: TransferSettings | None = None
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW. Only weights of convolutions and fully connected layers decay.

    Decaying biases and batch norms only shrinks what the next layer makes up for (He et al. 2019, "Bag of Tricks").
    """
    chosen = transfer or TransferSettings()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad or chosen.thaw_epochs:
            decay = config.weight_decay if value.ndim > 1 else 0.0
            groups.setdefault((decay, rate_of(name, chosen)), []).append(value)
    parts = [{"params": found, "weight_decay": decay, "rate": rate} for (decay, rate), found in groups.items()]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parts, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(parts, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def learning_rate(step: int, num_steps: int, config: OptimSettings) -> float:
    """Linear warm-up, then a cosine down to ``final_lr`` (Loshchilov and Hutter 2017); a function of the step alone."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    share = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * share)


def rate_of(name: str, transfer: TransferSettings) -> float:
    """The share of the learning rate that a parameter gets, by the longest prefix that fits."""
    # the trained module wraps the network
    plain = name.removeprefix("network.")
    fitting = [prefix for prefix in transfer.rates if plain.startswith(prefix)]
    return transfer.rates[max(fitting, key=len)] if fitting else 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Of all groups, each by its share."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)


def frozen_prefixes(transfer: TransferSettings, epoch: int) -> tuple[str, ...]:
    """Which of the frozen layers still are in this epoch, from 0."""
    thawed = epoch // transfer.thaw_epochs if transfer.thaw_epochs else 0
    return transfer.freeze[: max(0, len(transfer.freeze) - thawed)]


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Stop the named layers from learning; returns the names of the parameters that stand still."""
    frozen = [name for name, _ in model.named_parameters() if name.startswith(prefixes or ("\0",))]
    for name, value in model.named_parameters():
        value.requires_grad_(name not in frozen)
    return frozen


def set_training_mode(model: nn.Module, config: OptimSettings, prefixes: tuple[str, ...]) -> None:
    """Training mode, but batch norms that are frozen keep their statistics."""
    model.train()
    for name, module in model.named_modules():
        is_frozen = config.freeze_bn or name.startswith(prefixes or ("\0",))
        # SyncBatchNorm is no BatchNorm2d, but both are of this class
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_frozen:
            module.eval()


def mixed_precision(config: OptimSettings, device: torch.device) -> torch.dtype | None:
    """The type that convolutions compute in, None for float32.

    ``auto`` takes bfloat16 where the processor has instructions for it (about 1.9 times the speed on a CPU with
    AVX512-BF16); elsewhere it would be emulated and slow. GPUs older than Ampere get float16 with loss scaling.
    """
    match config.amp:
        case "off":
            return None
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else None


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
