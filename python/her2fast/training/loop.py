# SPDX-License-Identifier: Apache-2.0
"""The loop over epochs: the same for every stage, and the same after a kill.

Whatever is random in an epoch follows from (seed, epoch), never from what went before,
and a checkpoint after each epoch holds weights, optimizer and counters. So a run that
was killed and started again ends with the weights, bit for bit, of one that was not
(same machine, same threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from her2fast.errors import DeviceError, UsageError
from her2fast.training.backbones import parameter_groups
from her2fast.training.checkpoint import load_checkpoint, save_checkpoint
from her2fast.training.config import EpochConfig
from her2fast.training.config_sections import Compute, Optimizer
from her2fast.training.run_folder import Row, RunFolder

Say = Callable[[str], None]

#: A cycle rises for this share of the run, from this share of the peak.
WARM_SHARE = 0.15
WARM_FROM = 0.04


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch trains on."""

    steps: int
    batches: Iterable[Any]
    figures: Mapping[str, float] = field(default_factory=dict)


class StageWork(Protocol):
    """What differs between stages."""

    #: The validation figure that decides which epoch is best.
    monitor: str
    larger_is_better: bool
    #: Momentum starts anew each epoch, and batch norms keep their statistics (P18).
    fresh_optimizer: bool
    frozen_norms: bool
    #: What it begins with is trained already, and the best until an epoch beats it.
    begins_trained: bool

    def begin(self, epoch: int, network: nn.Module) -> EpochPlan | None:
        """The plan of an epoch; None ends the run: nothing is left to train on."""
        ...

    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """The mean loss of a batch."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures on the validation set; `monitor` is one of them."""
        ...


def epoch_seed(seed: int, epoch: int, *more: int) -> int:
    """A seed of 63 bits for one purpose in one epoch."""
    words = np.random.SeedSequence([seed, epoch, *more]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def open_fabric(compute: Compute) -> Any:
    """Lightning Fabric on the devices asked for; raises `DeviceError`."""
    try:
        from lightning_fabric import Fabric
    except ModuleNotFoundError as error:
        raise UsageError(
            "training needs lightning-fabric: pip install her2fast[train]"
        ) from error
    if compute.accelerator == "cuda":
        have = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if have < 1:
            raise DeviceError(
                "[compute] accelerator: cuda: this machine or this torch "
                f"({torch.__version__}) has no CUDA device"
            )
        if have < compute.devices:
            raise DeviceError(
                f"[compute] devices: {compute.devices}: this machine has {have}"
            )
    if compute.threads:
        torch.set_num_threads(compute.threads)
    fabric = Fabric(
        accelerator=compute.accelerator,
        devices=compute.devices,
        precision=compute.precision,
    )
    fabric.launch()
    return fabric


def make_optimizer(network: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of a configuration."""
    parameters = parameter_groups(network)
    if config.name == "adamw":
        return torch.optim.AdamW(
            parameters, config.lr, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def rate_factor(schedule: str, progress: float) -> float:
    """Share of the learning rate at `progress` in [0, 1] of the run."""
    if schedule == "constant":
        return 1.0
    if schedule == "one-cycle":
        if progress < WARM_SHARE:
            return WARM_FROM + (1.0 - WARM_FROM) * progress / WARM_SHARE
        progress = (progress - WARM_SHARE) / (1.0 - WARM_SHARE)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def freeze_norms(network: nn.Module) -> None:
    """Batch norms use their running statistics and do not move them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def fit(
    fabric: Any,
    run: RunFolder,
    network: nn.Module,
    work: StageWork,
    config: EpochConfig,
    *,
    resume: bool,
    say: Say,
) -> dict[str, Any]:
    """Train until the last epoch, or until patience ends; returns the outcome.

    The run's `best` checkpoint holds the best epoch's weights.
    """
    train, optimizer, seed = config.train, config.optimizer, config.run.seed
    engine = make_optimizer(network, optimizer)
    state: dict[str, Any] = {
        "epoch": 0,
        "best_epoch": None,
        "best": None,
        "stale": 0,
        "done": False,
    }
    if resume:
        state = load_checkpoint(run.last, network, engine)
        say(f"resuming after epoch {state['epoch']}")
    rows = run.read_metrics(before_epoch=state["epoch"] + 1) if resume else []
    model, wrapped = fabric.setup(network, engine)
    if work.begins_trained and state["best"] is None:
        figures = work.validate(model)
        state.update(best=figures[work.monitor], best_epoch=0)
        rows = [{"epoch": 0, **_rounded(figures)}]
        if fabric.is_global_zero:
            save_checkpoint(run.best, network, {"epoch": 0, **figures})
            run.write_metrics(rows)
        say(_line(rows[-1], train.epochs))
    while state["epoch"] < train.epochs and not state["done"]:
        epoch = state["epoch"] + 1
        torch.manual_seed(epoch_seed(seed, epoch, fabric.global_rank))
        if work.fresh_optimizer:
            engine.state.clear()
        plan = work.begin(epoch, model)
        if plan is None:
            say(f"epoch {epoch}: nothing is left to train on")
            state["done"] = True
        else:
            loss = _train_epoch(
                fabric, model, wrapped, work, plan, optimizer, (epoch, train.epochs)
            )
            figures = work.validate(model)
            better = _is_better(figures[work.monitor], state["best"], work)
            state["stale"] = 0 if better else state["stale"] + 1
            if better:
                state.update(best=figures[work.monitor], best_epoch=epoch)
            state["done"] = 0 < train.patience <= state["stale"]
            row: Row = {"epoch": epoch, "loss": loss}
            row |= dict(plan.figures) | figures
            rows.append(_rounded(row))
            if fabric.is_global_zero and better:
                save_checkpoint(run.best, network, {"epoch": epoch, **figures})
            say(_line(rows[-1], train.epochs) + (" best" if better else ""))
        state["epoch"] = epoch
        if fabric.is_global_zero:
            # The rows first: those beyond the checkpoint are dropped by a rerun.
            run.write_metrics(rows)
            save_checkpoint(run.last, network, state, engine)
        fabric.barrier()
    return {
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "monitor": work.monitor,
        "best": state["best"],
    }


def _train_epoch(
    fabric: Any,
    model: nn.Module,
    wrapped: Any,
    work: StageWork,
    plan: EpochPlan,
    optimizer: Optimizer,
    place: tuple[int, int],
) -> float:
    model.train()
    if work.frozen_norms:
        freeze_norms(model)
    epoch, epochs = place
    total = torch.zeros((), device=fabric.device)
    for step, batch in enumerate(plan.batches):
        progress = (epoch - 1 + step / plan.steps) / epochs
        for group in wrapped.param_groups:
            group["lr"] = optimizer.lr * rate_factor(optimizer.schedule, progress)
        loss = work.loss(model, batch)
        wrapped.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        wrapped.step()
        total += loss.detach()
    mean = float(total) / max(plan.steps, 1)
    if not math.isfinite(mean):
        raise UsageError(
            f"epoch {epoch}: the loss is {mean}; lower [optimizer] lr or set clip_norm"
        )
    return mean


def _is_better(value: float, best: float | None, work: StageWork) -> bool:
    if best is None:
        return True
    return value > best if work.larger_is_better else value < best


def _rounded(row: Mapping[str, Any]) -> Row:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}


def _line(row: Row, epochs: int) -> str:
    rest = "  ".join(f"{k} {v}" for k, v in row.items() if k != "epoch")
    return f"epoch {row['epoch']}/{epochs}  {rest}"
