"""One test's part of the cluster: a namespace, a claim of the user's, pods that are played, and an operator."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from falcon_operator.__main__ import Operator
from falcon_operator.api.names import API_VERSION, KIND, RUN_LABEL
from falcon_operator.objects import Object
from falcon_operator.settings import Settings
from tests.cluster.processes import Process
from tests.integration.api import Admin, api_client, condition_of, until
from tests.integration.kubelet import Kubelet

CLAIM = "inputs"
CHILD_KINDS = ("Job", "Service", "Deployment", "ConfigMap", "PersistentVolumeClaim", "Pod")
SPEC: dict[str, Any] = {
    "model": {"source": f"pvc://{CLAIM}/base"},
    "dataset": {"sources": [{"uri": f"pvc://{CLAIM}/records.jsonl"}]},
    "training": {"maxSteps": 60, "globalBatchSize": 8, "microBatchSize": 4},
    "gang": {"nodes": 2, "gpusPerNode": 0},
    "workspace": {"claimName": CLAIM},
}


@dataclass
class Lab:
    """What a test works with."""

    admin: Admin
    namespace: str
    kubelet: Kubelet
    operator_kubeconfig: Path
    folder: Path
    processes: list[Process] = field(default_factory=list)

    async def submit(self, name: str = "r", /, *, labels: Mapping[str, str] | None = None, **changes: Any) -> Object:
        """Creates a run with these labels: SPEC with parts of it replaced, field by field."""
        spec = laid_over(SPEC, changes)
        run = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.namespace, "labels": dict(labels or {})},
            "spec": spec,
        }
        created = await self.admin.create(run)
        assert created, f"a run {name} exists already"
        return created

    async def run(self, name: str = "r") -> Object:
        """The run as it is now."""
        found = await self.admin.get(KIND, self.namespace, name)
        assert found, f"the run {name} is gone"
        return found

    async def change(self, name: str = "r", /, **changes: Any) -> None:
        """Changes fields of the run's spec."""
        await self.admin.patch(KIND, self.namespace, name, {"spec": changes})

    async def delete(self, name: str = "r") -> None:
        """Deletes the run."""
        await self.admin.remove(KIND, self.namespace, name)

    async def without(self, field_name: str, name: str = "r") -> bool:
        """Whether the run's status does not have this field."""
        return field_name not in (await self.run(name)).get("status", {})

    async def until_gone(self, child: str, name: str = "r") -> None:
        """Waits until the child KIND/NAME is gone."""

        async def gone() -> bool:
            return child not in await self.children(name)

        await until(f"{child} to go", gone)

    async def until_condition(
        self, kind: str, status: str, name: str = "r", *, reason: str = "", seconds: float = 40.0
    ) -> dict[str, Any]:
        """The condition, once it has this status (and reason)."""

        async def reached() -> dict[str, Any] | None:
            found = condition_of(await self.run(name), kind)
            right = found.get("status") == status and reason in ("", found.get("reason"))
            return found if right else None

        try:
            return await until(f"{kind}={status} {reason}", reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.described(name)}") from None

    async def until_pods(
        self, stage: str, count: int, phase: str = "Running", attempt: int | None = None
    ) -> list[Object]:
        """The pods of a stage, once `count` of them are in this phase; the one of index 0 first."""

        async def there() -> list[Object] | None:
            found = [
                pod
                for pod in await self.kubelet.pods_of(stage)
                if (pod.get("status") or {}).get("phase") == phase
                and "deletionTimestamp" not in pod["metadata"]
                and attempt in (None, int(pod["metadata"]["labels"].get("falcon-finetune.dev/attempt", 0)))
            ]
            return sorted(found, key=lambda pod: str(pod["metadata"]["name"])) if len(found) == count else None

        return await until(f"{count} {stage} pods that are {phase}", there)

    async def children(self, name: str = "r") -> dict[str, Object]:
        """Every child of the run by KIND/NAME."""
        found: dict[str, Object] = {}
        for kind in CHILD_KINDS:
            for obj in await self.admin.find(kind, self.namespace, labels=f"{RUN_LABEL}={name}"):
                found[f"{kind}/{obj['metadata']['name']}"] = obj
        return found

    async def events(self, name: str = "r") -> list[Object]:
        """Events about the run, oldest first."""
        fields = f"involvedObject.kind={KIND},involvedObject.name={name}"
        found = await self.admin.find("Event", self.namespace, fields=fields)
        return sorted(found, key=lambda event: str(event.get("lastTimestamp")))

    async def described(self, name: str) -> str:
        """The run's status, its children and the end of the operators' logs, for the message of a failed test."""
        run = await self.admin.get(KIND, self.namespace, name)
        lines = [f"status: {(run or {}).get('status')}", f"children: {sorted(await self.children(name))}"]
        lines += [f"{process.name}:\n{process.last_words()}" for process in self.processes]
        return "\n".join(lines)

    def settings(self, **changes: Any) -> Settings:
        """Settings of an operator that acts in this namespace only."""
        defaults: dict[str, Any] = {
            "trainer_image": "trainer:test",
            "namespaces": (self.namespace,),
            "pod_namespace": self.namespace,
            "address": "127.0.0.1",
            "port": 0,
        }
        return Settings(**(defaults | changes))

    @asynccontextmanager
    async def operator(self, **changes: Any) -> AsyncIterator[Operator]:
        """An operator in this process, with the chart's permissions."""
        stop = asyncio.Event()
        async with api_client(self.operator_kubeconfig) as api:
            operator = Operator(self.settings(**changes), api)
            task = asyncio.create_task(operator.run(stop))
            try:
                yield operator
            finally:
                stop.set()
                await task

    def start_process(self, name: str, **environment: str) -> Process:
        """An operator as a process of its own, which can be killed."""
        process = Process(name, self.folder)
        given = {
            "KUBECONFIG": str(self.operator_kubeconfig),
            "FALCON_TRAINER_IMAGE": "trainer:test",
            "FALCON_NAMESPACES": self.namespace,
            "FALCON_HEALTH_ADDRESS": "127.0.0.1",
            "POD_NAME": name,
            "POD_NAMESPACE": self.namespace,
        }
        env = dict(os.environ) | given | environment
        process.start([sys.executable, "-m", "falcon_operator"], env=env, dies_with_parent=True)
        self.processes.append(process)
        return process


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with `above` laid over it, mapping by mapping; None takes a field away."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = laid_over(found[key], value) if both else value
    return {key: value for key, value in found.items() if value is not None}
