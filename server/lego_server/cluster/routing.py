"""Which replica a query goes to: the least busy; among equals, the one that holds its frame."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from lego_server.cluster import running

_FRAMES_KNOWN = 4096


class FrameRouter(RequestRouter):
    """Runs in the server's process, on a thread of Ray's; the frame's key travels as the request's session id.

    Ray carries it there by value, with a copy of this module's own variables; `running.py` it finds as it is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._holders: OrderedDict[str, ReplicaID] = OrderedDict()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Returns the replicas to try, the most preferred first; of each rank Ray takes the least busy."""
        # In any order, as Ray takes the first of those that are equally busy.
        ranks = [random.sample(candidate_replicas, len(candidate_replicas))]
        if pending_request is None:
            return ranks
        pending_request.routing_context.should_backoff = True  # all are tried at once; trying again can wait
        holder = self._holders.get(pending_request.metadata.session_id)
        busy = {each.replica_id: self.replica_queue_len_cache.get(each.replica_id) or 0 for each in candidate_replicas}
        # One more is no more: the query before this one about the frame may still be counted.
        if holder in busy and busy[holder] <= min(busy.values()) + 1:
            ranks.insert(0, [each for each in candidate_replicas if each.replica_id == holder])
        return ranks

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Remembers who holds the frame."""
        key = pending_request.metadata.session_id
        self._holders.pop(key, None)
        self._holders[key] = replica_id
        if len(self._holders) > _FRAMES_KNOWN:
            self._holders.popitem(last=False)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Told by Ray who is there."""
        super().update_replicas(replicas)
        self._count()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Told by Ray when a request met a replica that is gone."""
        super().on_replica_actor_died(replica_id)
        self._count()

    def _count(self) -> None:
        running.note(self.app_name, len(self.curr_replicas))
