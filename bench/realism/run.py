# SPDX-License-Identifier: Apache-2.0
"""How easily are phantoms told from real tissue? See README.md."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import phantom
from her2fast.phantom.mixtures import draw_mixture
from her2fast.phantom.stroma import StromaMix

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "tests")]

from features import describe  # noqa: E402
from sheet import read_core  # noqa: E402

import phantom_second  # noqa: E402
from conditions import machine, tell, versions  # noqa: E402

try:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ModuleNotFoundError:
    # `make bench` runs every bench, also where the training extra is absent.
    print("nothing measured: needs scikit-learn (pip install her2fast[train])")
    raise SystemExit(0) from None

PATCH_PX = 64
FIRST_SEED = 9_000_000
PER_GROUP = 60
#: Scores of the cores, in the order of their names; the fourth is nearly blank.
SCORES = (0, 0, 1, 0, 2, 3)
#: The profile whose hue, glass and noise were set after the cores.
CORE_LOOK = "grey-blue"
#: Brown that is no score, as training needs it and as these cores hardly have.
UNSPECIFIC = (
    "benign_stained",
    "hemosiderin",
    "formalin_pigment",
    "anthracosis",
    "brown_macrophages",
    "necrosis",
    "edge_artifact",
    "nuclear_dab",
    "dab_dots",
    "veil",
)
GROUPS = ("color", "texture", "spectrum")
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def mixture_of(index: int) -> tuple[float, float, float, float]:
    """Classes of a phantom: its score is that of one of the cores, all alike often."""
    rng = np.random.default_rng([FIRST_SEED, index])
    return draw_mixture(rng, SCORES[(index + index // len(SCORES)) % len(SCORES)])


def first(index: int, side_px: int) -> Bytes:
    """A phantom of the first generator in one of the looks that training sees."""
    look = phantom.PROFILES[index % len(phantom.PROFILES)]
    size = (side_px, side_px)
    mixture = mixture_of(index)
    return phantom.render(FIRST_SEED + index, size, mixture=mixture, profile=look).rgb


def first_plain(index: int, side_px: int) -> Bytes:
    """The same in the one look that is like the cores', without brown that lies."""
    return phantom.render(
        FIRST_SEED + index,
        (side_px, side_px),
        mixture=mixture_of(index),
        profile=CORE_LOOK,
        mix=replace(StromaMix(), **dict.fromkeys(UNSPECIFIC, 0.0)),
    ).rgb


def second(index: int, side_px: int) -> Bytes:
    """A phantom of the second generator."""
    return phantom_second.render(
        FIRST_SEED + index, (side_px, side_px), mixture=mixture_of(index)
    ).rgb


#: In the order of the report; the first alone is what training sees.
GENERATORS = {"first": first, "first_plain": first_plain, "second": second}


def patches(rgb: Bytes, limit: int, seed: int) -> list[Bytes]:
    """At most `limit` whole patches that are not mostly glass, drawn by seed."""
    found = []
    for y in range(0, rgb.shape[0] - PATCH_PX + 1, PATCH_PX):
        for x in range(0, rgb.shape[1] - PATCH_PX + 1, PATCH_PX):
            patch = rgb[y : y + PATCH_PX, x : x + PATCH_PX]
            # Tissue stains or scatters; glass is bright and flat.
            if (patch.min(-1) < 215).mean() > 0.3:
                found.append(patch)
    order = np.random.default_rng(seed).permutation(len(found))[:limit]
    return [found[i] for i in sorted(order)]


def table(pictures: list[Bytes], limit: int) -> tuple[Floats, Floats, list[str]]:
    """Statistics of all patches, each patch's picture, and the names."""
    rows, groups, names = [], [], []
    for number, picture in enumerate(pictures):
        for patch in patches(picture, limit, number):
            values = describe(patch)
            names = list(values)
            rows.append(list(values.values()))
            groups.append(number)
    return np.array(rows), np.array(groups, np.float64), names


def models() -> dict[str, Any]:
    return {
        "logistic_regression": make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
        ),
        "gradient_boosting": HistGradientBoostingClassifier(
            max_iter=80, max_leaf_nodes=15, early_stopping=False, random_state=0
        ),
    }


def folds(
    real: tuple[Floats, Floats], made: tuple[Floats, Floats]
) -> list[tuple[Floats, Floats, Floats, Floats]]:
    """Train and test sets: one core against the others, phantoms split alike."""
    out = []
    cores = np.unique(real[1])
    for k, core in enumerate(cores):
        r, m = real[1] == core, made[1] % len(cores) == k
        x = np.concatenate([real[0][~r], made[0][~m]])
        y = np.concatenate([np.zeros((~r).sum()), np.ones((~m).sum())])
        x_test = np.concatenate([real[0][r], made[0][m]])
        y_test = np.concatenate([np.zeros(r.sum()), np.ones(m.sum())])
        out.append((x, y, x_test, y_test))
    return out


def auc(model: Any, x: Floats, y: Floats) -> float:
    return float(roc_auc_score(y, model.predict_proba(x)[:, 1]))


def spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "standard_deviation": round(float(np.std(values, ddof=1)), 4),
        "by_core": [round(v, 4) for v in values],
    }


def compare(
    real: tuple[Floats, Floats], made: tuple[Floats, Floats], names: list[str]
) -> dict[str, Any]:
    """AUC of both models, of each group of statistics alone, and what is used."""
    splits = folds(real, made)
    rng = np.random.default_rng(0)
    report: dict[str, Any] = {"auc": {}, "auc_by_group": {}}
    drops = np.zeros(len(names))
    for kind in models():
        values = []
        for x, y, x_test, y_test in splits:
            model = models()[kind].fit(x, y)
            values.append(auc(model, x_test, y_test))
            if kind != "logistic_regression":
                continue
            # In log-odds, which see a loss also where AUC stays at 1.
            whole = model.decision_function(x_test)
            gap = whole[y_test == 1].mean() - whole[y_test == 0].mean()
            for k in range(len(names)):
                moved = x_test.copy()
                moved[:, k] = rng.permutation(moved[:, k])
                odds = model.decision_function(moved)
                lost = gap - (odds[y_test == 1].mean() - odds[y_test == 0].mean())
                drops[k] += lost / gap / len(splits)
        report["auc"][kind] = spread(values)
    for group in GROUPS:
        use = [k for k, name in enumerate(names) if name.startswith(group)]
        values = [
            auc(models()["gradient_boosting"].fit(x[:, use], y), x_test[:, use], y_test)
            for x, y, x_test, y_test in splits
        ]
        report["auc_by_group"][group] = spread(values)
    alone = np.zeros(len(names))
    y_all = np.r_[np.zeros(len(real[0])), np.ones(len(made[0]))]
    for k in range(len(names)):
        alone[k] = roc_auc_score(y_all, np.r_[real[0][:, k], made[0][:, k]])

    def line(k: int) -> dict[str, Any]:
        low = np.quantile(real[0][:, k], (0.1, 0.5, 0.9))
        high = np.quantile(made[0][:, k], (0.1, 0.5, 0.9))
        return {
            "statistic": names[k],
            "auc_alone": round(float(max(alone[k], 1 - alone[k])), 3),
            "share_of_log_odds": round(float(drops[k]), 3),
            "real_q10_q50_q90": [round(float(v), 3) for v in low],
            "phantom_q10_q50_q90": [round(float(v), 3) for v in high],
        }

    report["most_used"] = [line(int(k)) for k in np.argsort(-drops)[:10]]
    report["best_alone"] = [line(int(k)) for k in np.argsort(-np.abs(alone - 0.5))[:10]]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cores", type=Path, help="folder of core_*.jpg")
    parser.add_argument("--phantoms", type=int, default=24, help="per generator")
    parser.add_argument("--side-px", type=int, default=768)
    options = parser.parse_args()
    data = os.environ.get("HER2FAST_TEST_DATA", str(ROOT.parent / "shared/data"))
    folder = options.cores or Path(data) / "her2_cores"
    paths = sorted(folder.glob("core_*.jpg"))
    if len(paths) < 2:
        print(f"nothing measured: no real cores in {folder} (see README.md)")
        return
    cores = [read_core(path) for path in paths]
    real = table(cores, 4 * PER_GROUP)
    generators: dict[str, Any] = {}
    for name, make in GENERATORS.items():
        made_pictures = [make(k, options.side_px) for k in range(options.phantoms)]
        made = table(made_pictures, PER_GROUP)
        generators[name] = {
            "patches": len(made[0]),
            **compare((real[0], real[1]), (made[0], made[1]), real[2]),
        }
        sys.stderr.write(f"{name}: {generators[name]['auc']}\n")
    report = {
        "question": "How easily are phantoms told from real tissue, 64 px at 1 um/px?",
        "real": {"cores": [path.stem for path in paths], "patches": len(real[0])},
        "phantoms_per_generator": options.phantoms,
        "generators": generators,
        "machine": machine(),
        "versions": versions("numpy", "scikit-learn"),
    }
    tell(report, options.json)


if __name__ == "__main__":
    main()
