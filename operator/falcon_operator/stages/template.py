"""How a run's pod templates are laid over each other: `all`, then the stage's own, which wins.

Maps (labels, annotations, nodeSelector, requests, limits) are merged key by key, variables and volumes by name;
tolerations and pull secrets add up; everything else is replaced as a whole.
"""

from collections.abc import Callable, Iterable
from typing import Any

from falcon_operator.api.names import StageName
from falcon_operator.api.spec import IdentityPodTemplate, PodTemplate, PodTemplates

Wired = dict[str, Any]


def merged_template(templates: PodTemplates | None, stage: StageName) -> IdentityPodTemplate:
    """The template that holds for `stage` (a IdentityPodTemplate has all the fields of the others)."""
    found: Wired = {}
    if templates:
        for layer in (templates.all, getattr(templates, stage)):
            found = _over(found, layer)
    return IdentityPodTemplate.model_validate(found)


def _over(below: Wired, layer: PodTemplate | None) -> Wired:
    if layer is None:
        return below
    found = dict(below)
    for field, value in layer.to_wire().items():
        merge = MERGED.get(field)
        found[field] = merge(below[field], value) if merge and field in below else value
    return found


def _maps(below: Wired, above: Wired) -> Wired:
    return below | above


def _maps_of_maps(below: Wired, above: Wired) -> Wired:
    return {key: below.get(key, {}) | above.get(key, {}) for key in below | above}


def _named(below: Iterable[Wired], above: Iterable[Wired]) -> list[Wired]:
    return list(({item["name"]: item for item in below} | {item["name"]: item for item in above}).values())


def _added(below: list[Wired], above: list[Wired]) -> list[Wired]:
    return below + [item for item in above if item not in below]


MERGED: dict[str, Callable[[Any, Any], Any]] = {
    "labels": _maps,
    "annotations": _maps,
    "nodeSelector": _maps,
    "resources": _maps_of_maps,
    "env": _named,
    "volumes": _named,
    "tolerations": _added,
    "imagePullSecrets": _added,
}
