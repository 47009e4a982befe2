// Copies heads between packed layouts: how keys and values enter a cache.
#pragma once

#include "core/context.h"
#include "ops/heads.h"

namespace keen::ops {

// to = from, element by element; the views have the same (B, T, heads, D) and type, and may not overlap.
void copy_heads(Context& ctx, Heads to, ConstHeads from);

template <Device> void copy_heads_on(Context& ctx, Heads to, ConstHeads from);

}  // namespace keen::ops
