# SPDX-License-Identifier: Apache-2.0
"""Tables of patches with slide labels: for the kernels of training."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# Few values, so that ties, equal areas and exact limits come up.
logit = st.sampled_from([-40.0, -2.0, -1.0, -0.25, 0.0, 0.25, 1.0, 2.0, 30.0])
any_logit = st.floats(-100, 100, width=32)
uppers = st.tuples(*[st.tuples(*[st.sampled_from([1, 100, 333, 1000, 1001])] * 4)] * 4)


@st.composite
def tables(draw, most_slides=4, most_patches=40):
    counts = draw(st.lists(st.integers(0, most_patches), max_size=most_slides))
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    n = int(offsets[-1])
    values = draw(st.sampled_from([logit, any_logit]))
    logits = draw(arrays(np.float32, (n, 4), elements=values))
    weights = draw(st.sampled_from([[0, 10, 90], [0, 1, 7, 4096], [100]]))
    px = draw(arrays(np.uint32, n, elements=st.sampled_from(weights)))
    labels = draw(arrays(np.int64, len(counts), elements=st.integers(0, 3)))
    return logits, px, offsets, labels


def synthetic(seed, slides, patches, noise=1.2):
    """Slides whose patches obey their label, under logits that are off by class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, slides)
    mixes = np.array(
        [[85, 8, 4, 3], [45, 45, 6, 4], [30, 30, 35, 5], [20, 20, 25, 35]], float
    )
    logits = np.empty((slides * patches, 4), np.float32)
    for s, y in enumerate(labels):
        mix = rng.dirichlet(mixes[y] / 4)
        truth = rng.choice(4, patches, p=mix)
        distance = np.abs(truth[:, None] - np.arange(4))
        rows = -1.5 * distance + noise * rng.normal(size=(patches, 4))
        logits[s * patches : (s + 1) * patches] = rows
    off = rng.normal(0, 0.6, 4), np.exp(rng.normal(0, 0.3, 4))
    logits = ((logits + off[0]) * off[1]).astype(np.float32)
    px = rng.integers(410, 4097, slides * patches).astype(np.uint32)
    return logits, px, np.arange(slides + 1) * patches, labels
