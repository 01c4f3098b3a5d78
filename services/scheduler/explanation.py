"""Why the next request of an adapter would go where it goes."""

from dataclasses import replace

from services.core.types import Digest
from services.policies.placement import cost
from services.policies.placement.cost import Cost
from services.policies.placement.homes import homes
from services.scheduler.fleet import Fleet, wish_for


def explain(fleet: Fleet, adapter: Digest, base_model: str, count: int) -> list[Cost]:
    """The best first, then those that cannot run it. `count`: homes that it has."""
    serving = [each.id for each in fleet.open() if each.base_model == base_model]
    at_home = homes(adapter, dict.fromkeys(serving, 1.0), count) if adapter else ()
    wish = replace(wish_for(base_model, "", adapter, ()), homes=frozenset(at_home))
    return cost.explain(wish, fleet.views())
