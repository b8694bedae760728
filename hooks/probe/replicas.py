"""What stands for the parameters that every rank should start with alike. Read once, before the first forward."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from torch import nn

from initscope.hooks.probe.traits import digest_of
from initscope.hooks.probe.walk import Tree, Weight, why_not
from initscope.hooks.vocabulary import MAX_DIGESTS

ALL: Final = ""
"""The name of the digest over all parameters, those that are not told one by one as well."""
_SHARDING: Final = re.compile(r"FullyShardedDataParallel|FSDP")
_PARALLEL: Final = re.compile(r"Parallel(Linear|Embedding)|Expert", re.IGNORECASE)
_MARKS: Final = ("tensor_model_parallel", "ds_id", "partition_dim", "expert_parallel")


def read_digests(tree: Tree) -> dict[str, str]:
    """Digests by full name of the replicated parameters, evenly spaced where there are too many; empty if sharded."""
    if any(_SHARDING.search(type(site.module).__name__) for site in tree.sites.values()):
        return {}
    found = {
        w.full_name: digest
        for w in tree.weights
        if _is_replica(w, tree.sites[w.path].module) and (digest := digest_of(w.tensor.detach())) is not None
    }
    if not found:
        return {}
    everything = hashlib.blake2b("\n".join(f"{k} {x}" for k, x in found.items()).encode(), digest_size=8).hexdigest()
    names, most = list(found), MAX_DIGESTS - 1
    told = names if len(names) <= most else [names[i * len(names) // most] for i in range(most)]
    return {ALL: everything, **{name: found[name] for name in told}}


def _is_replica(weight: Weight, module: nn.Module) -> bool:
    """Whether every rank should have the same: no shard, no part of a parallel layer, no expert of its own."""
    if why_not(weight.tensor) is not None or _PARALLEL.search(f"{type(module).__name__} {weight.path}"):
        return False
    if getattr(weight.tensor, "allreduce", True) is False:
        return False
    return not any(getattr(weight.tensor, mark, None) for mark in _MARKS)
