// SPDX-License-Identifier: Apache-2.0
/// All kernels at once, for hosts that prefer one include.
#pragma once

#include "her2fast/cells.h"
#include "her2fast/constraint_select.h"
#include "her2fast/focus.h"
#include "her2fast/logit_calibrate.h"
#include "her2fast/membrane.h"
#include "her2fast/membrane_prune.h"
#include "her2fast/normalize_batch.h"
#include "her2fast/nuclei.h"
#include "her2fast/stain_census.h"
#include "her2fast/stain_unmix.h"
#include "her2fast/superpixel_features.h"
#include "her2fast/superpixels.h"
#include "her2fast/svm_decision.h"
#include "her2fast/tissue_mask.h"
#include "her2fast/tumor_bits.h"
#include "her2fast/tumor_count.h"
