"""Who acts: one replica holds a Lease, the others wait for it.

Rules, in the order of what they protect:
- A holder that could not renew for RENEW_DEADLINE seconds stops acting (each write asks `check`) and its process ends.
- Another replica takes over only after it has seen the same record for LEASE_DURATION seconds of its own monotonic
  clock; wall clocks of two machines are never compared.
- RENEW_DEADLINE + one request < LEASE_DURATION, so the old holder is silent before the next one starts.
- A holder that stops on purpose empties the record, so the next one need not wait.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio import client

from falcon_operator import metrics

LEASE_DURATION = 15
"""Seconds; this and the next two are client-go's defaults for controllers."""
RENEW_DEADLINE = 10.0
RETRY_PERIOD = 2.0
REQUEST_TIMEOUT = 3.0

log = logging.getLogger(__name__)


class LeadershipLostError(RuntimeError):
    """This process must not act any more."""


@dataclass(frozen=True)
class _Seen:
    version: str
    since: float


class Leadership:
    """The Lease `namespace/name`, held or wanted by `identity`."""

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = client.CoordinationV1Api(api)
        self._namespace, self._name, self._identity, self._clock = namespace, name, identity, clock
        self._renewed: float | None = None
        self._seen: _Seen | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the Lease and may trust that it does."""
        return self._renewed is not None and self._clock() - self._renewed < RENEW_DEADLINE

    def check(self) -> None:
        """Raises LeadershipLostError unless this process may act now."""
        if not self.held:
            raise LeadershipLostError(f"{self._identity} does not hold the lease {self._namespace}/{self._name}")

    async def acquire(self) -> None:
        """Returns once the Lease is held; waits for that as long as it takes."""
        while not await self._attempt(self._take):  # noqa: ASYNC110 (the API server is waited for)
            await asyncio.sleep(RETRY_PERIOD)
        metrics.LEADER.set(1)
        log.info("holds the lease %s/%s as %s", self._namespace, self._name, self._identity)

    async def keep(self) -> None:
        """Renews the Lease for ever; raises LeadershipLostError when it is lost."""
        while True:
            await asyncio.sleep(RETRY_PERIOD)
            await self._attempt(self._renew)
            self.check()

    async def release(self) -> None:
        """Gives the Lease back, so that another replica need not wait for it to run out; a failure costs only time."""
        metrics.LEADER.set(0)
        if not self.held:
            return
        try:
            lease = await self._read()
            if lease.spec.holder_identity == self._identity:
                lease.spec.holder_identity = ""
                lease.spec.lease_duration_seconds = 1
                await self._replace(lease)
        except (client.ApiException, OSError, TimeoutError) as error:
            log.warning("could not release the lease: %r", error)
        finally:
            self._renewed = None

    async def _attempt(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """One bounded try; no answer and a refusal mean: not this time."""
        started = self._clock()
        try:
            done = await asyncio.wait_for(step(), REQUEST_TIMEOUT)
        except (client.ApiException, OSError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, getattr(error, "reason", None) or repr(error))
            return False
        if done:
            # The age counts from before the request: that is when the API server may have written it.
            self._renewed = started
        return done

    async def _take(self) -> bool:
        try:
            lease = await self._read()
        except client.ApiException as error:
            if error.status != 404:
                raise
            await self._create()
            return True
        if not self._is_free(lease):
            return False
        if lease.spec.holder_identity != self._identity:
            lease.spec.lease_transitions = (lease.spec.lease_transitions or 0) + 1
            lease.spec.acquire_time = datetime.now(UTC)
        await self._replace(self._claimed(lease))
        return True

    async def _renew(self) -> bool:
        lease = await self._read()
        if lease.spec.holder_identity != self._identity:
            self._renewed = None
            return False
        await self._replace(self._claimed(lease))
        return True

    def _is_free(self, lease: Any) -> bool:
        version = lease.metadata.resource_version
        if self._seen is None or self._seen.version != version:
            self._seen = _Seen(version, self._clock())
        if lease.spec.holder_identity in (None, "", self._identity):
            return True
        return self._clock() - self._seen.since > (lease.spec.lease_duration_seconds or LEASE_DURATION)

    def _claimed(self, lease: Any) -> Any:
        lease.spec.holder_identity = self._identity
        lease.spec.lease_duration_seconds = LEASE_DURATION
        lease.spec.renew_time = datetime.now(UTC)
        return lease

    async def _read(self) -> Any:
        return await self._leases.read_namespaced_lease(self._name, self._namespace)

    async def _create(self) -> None:
        now = datetime.now(UTC)
        spec = client.V1LeaseSpec(acquire_time=now, lease_transitions=0)
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=self._name), spec=spec)
        await self._leases.create_namespaced_lease(self._namespace, self._claimed(lease))

    async def _replace(self, lease: Any) -> None:
        """Refused by the API server (409) if anyone wrote the Lease since it was read."""
        await self._leases.replace_namespaced_lease(self._name, self._namespace, lease)
