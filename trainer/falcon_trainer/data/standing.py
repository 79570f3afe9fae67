"""A data set that was prepared before: found again where it is whole and was made from the same records."""

import shutil

from pydantic import JsonValue

from falcon_trainer.artifacts import problem, read_manifest
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError


def standing(layout: RunLayout, identity: str, sources: dict[str, str]) -> JsonValue:
    """The figures of the data set that stands in the run's folder, or None where it is to be made.

    Raises StageError(CONFIGURATION) where the records are others by now: what was trained on the old ones must not
    pass for what the new ones give.
    """
    manifest = read_manifest(layout.data)
    if manifest is None or manifest.facts.get("identity") != identity:
        return None
    if manifest.facts.get("sources") != sources:
        raise _changed(layout, manifest.facts.get("sources"), sources)
    if wrong := problem(layout.data, manifest, contents=True):
        print(f"The prepared data set is damaged ({wrong}) and is made anew.", flush=True)
        shutil.rmtree(layout.data)
        return None
    return manifest.facts["figures"]


def _changed(layout: RunLayout, before: JsonValue, now: dict[str, str]) -> StageError:
    known = before if isinstance(before, dict) else {}
    names = sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))
    return StageError(
        ExitCode.CONFIGURATION,
        "WorkspaceInUse",
        f"The records in {', '.join(names[:3])} are not those that the workspace folder {layout.relative(layout.root)} "
        "was prepared from. Use another name for a run on the new records, or delete that folder to start anew.",
    )
