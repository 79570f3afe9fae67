"""Names of the group, the labels and the annotations: the vocabulary that other tools select and filter by."""

from typing import Literal, get_args

GROUP = "falcon-finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FalconFineTune"
PLURAL = "falconfinetunes"

RUN_LABEL = f"{GROUP}/run"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"
ALIAS_LABEL = f"{GROUP}/alias"
"""Of the Service that several runs hand on."""
HASH_ANNOTATION = f"{GROUP}/hash"

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Of a run that waits in a queue: Kueue alone lets its gang start."""
QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

FIELD_MANAGER = "falcon-operator"
MAX_NAME = 40
"""Characters of a run's name: with `-train-K-INDEX` behind it, a pod's hostname must stay a DNS label of 63."""

StageName = Literal["prepare", "train", "merge", "serve", "evaluate", "publish"]
STAGES: tuple[StageName, ...] = get_args(StageName)
