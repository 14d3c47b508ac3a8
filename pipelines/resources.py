"""The resources that assets use. Nothing here reads the environment before a run asks for it."""

from assets.engine import HubResource
from hub.settings import DefinitionSettings


def resources(settings: DefinitionSettings) -> dict[str, object]:
    """Resources by the name that assets ask for."""
    return {"hub": HubResource(retry_seconds=settings.retry_seconds)}
