"""Room for the actors on a cluster, all or nothing."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from actors.runtime import Runtime
from anymodal.errors import PlacementError

Need = dict[str, float]


def needs(runtime: Runtime) -> dict[str, Need]:
    """What each actor asks for, by its role."""
    parts = {"source": runtime.source, "perception": runtime.perception, "mind": runtime.mind}
    return {role: {"CPU": part.cpus} | ({"GPU": part.gpus} if part.gpus else {}) for role, part in parts.items()}


def place(runtime: Runtime) -> PlacementGroup:
    """Reserve a bundle per actor, in the order of `needs`. Raises PlacementError naming what is missing."""
    wanted = needs(runtime)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for role, need in wanted.items():
        check_fits(role, need, nodes)
    check_total(wanted, {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")})
    group = placement_group(list(wanted.values()), strategy="PACK")
    if not group.wait(timeout_seconds=runtime.placement_timeout_s):
        remove_placement_group(group)
        free = ray.available_resources()
        raise PlacementError(
            f"the cluster is busy: {_say(_sum(wanted))} are needed, {_say({k: free.get(k, 0) for k in _sum(wanted)})} "
            f"came free within {runtime.placement_timeout_s:g} s",
            fix="wait for other jobs, add a node, or lower cpus and gpus under the bundle's `runtime`")
    return group


def check_fits(role: str, need: Need, nodes: list[dict[str, float]]) -> None:
    """Is there a node that could hold the actor at all?"""
    for kind, amount in need.items():
        largest = max((node.get(kind, 0) for node in nodes), default=0)
        if largest < amount:
            raise PlacementError(f"the {role} needs {amount:g} {kind}, no node has more than {largest:g}",
                                 fix=f"lower runtime.{role}.{kind.lower()}s in the bundle, or add a node")


def check_total(wanted: dict[str, Need], total: Need) -> None:
    """Would the cluster hold them all if it were idle?"""
    for kind, amount in _sum(wanted).items():
        if total.get(kind, 0) < amount - 1e-6:
            raise PlacementError(f"{', '.join(wanted)} need {amount:g} {kind} together, the cluster has "
                                 f"{total.get(kind, 0):g}",
                                 fix="lower them under the bundle's `runtime`, or add a node")


def _sum(wanted: dict[str, Need]) -> Need:
    kinds = {kind for need in wanted.values() for kind in need}
    return {kind: round(sum(need.get(kind, 0) for need in wanted.values()), 4) for kind in sorted(kinds)}


def _say(need: Need) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in need.items())
