"""The prepare stage: records are checked, then tokenized and packed; the model is checked, then fetched.

Cheap checks come first, so that a wrong field in line 3 is told in seconds and not after hours of download.
"""

from pydantic import JsonValue

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.data import contents
from falcon_trainer.data.making import Making
from falcon_trainer.data.sources import Sources
from falcon_trainer.data.standing import standing
from falcon_trainer.identity import claim
from falcon_trainer.layout import RunLayout
from falcon_trainer.model import source, warm_start
from falcon_trainer.train.batching import accumulation_steps


def prepare(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Prepares data and model; a second call finds both and reports the same. Raises StageError."""
    beats.update("start")
    accumulation_steps(config.training, config.gang.world_size)
    identity = claim(config, layout)
    dataset, making = _data(config, beats, layout, identity)
    warm = warm_start.provided(config, layout, identity)
    if dataset and warm and (model := source.remembered(config.model, layout, identity)):
        return {"dataset": dataset, "model": model}
    # Of the model, configuration and tokenizer come first: they are small, and without them no record is tokenized.
    located = source.locate(config.model, config.run, layout.workspace)
    if not warm:
        beats.update("adapter")
        warm_start.provide(config, layout, identity, located.folder)
    if making:
        dataset = making.publish(located.folder)
    beats.update("fetch" if located.remote else "verify")
    model = source.complete(config.model, located, config.lora, layout.workspace)
    source.refuse_changed(config.model, layout, identity)
    source.remember(config.model, layout, identity, model)
    return {"dataset": dataset, "model": model}


def _data(config: RunConfig, beats: Beats, layout: RunLayout, identity: str) -> tuple[JsonValue, Making | None]:
    """The figures of the data set where it stands; otherwise its making, with every record checked."""
    beats.update("sources")
    sources = Sources(config.dataset, layout.root / contents.DOWNLOADS)
    sources.fetch()
    fingerprint = sources.fingerprint()
    if figures := standing(layout, identity, fingerprint):
        return figures, None
    beats.update("data")
    facts: dict[str, JsonValue] = {"identity": identity, "sources": {**fingerprint}}
    return None, Making(config, layout, sources, facts, lambda said: beats.update("data", message=said))
