"""Gets images ready before anything stops, and keeps the replaced ones: going back needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .command import run
from .config import Config
from .containers import Container
from .log import Log
from .stack import Compose, Model
from .state import State


def prepare(
    config: Config,
    state: State,
    log: Log,
    model: Model,
    names: Iterable[str],
    running: Mapping[str, Container],
    root: Path,
    lock: int,
) -> None:
    """Build and pull what `names` need, from the files in `root`, and make the external volumes that are missing.

    No container is touched. Raises CommandFailed.

    The images that run now are tagged and remembered first. They are taken from the containers, since the
    image's name may already stand for the result of an earlier attempt that never ran, and only where the
    last deployment ended well.
    """
    wanted = [model.services[n] for n in sorted(names)]
    compose = Compose(config, root, lock)
    builders = sorted({s.builder for s in wanted if s.builder})
    state.kept_images = {}
    for service in wanted:
        container = running.get(service.name)
        if service.builder and container is not None and state.deployed.get(service.name) is not None:
            keep = _keep_tag(config, service.name)
            if run(["docker", "tag", container.image_id, keep], timeout=60, check=False).code != 0:
                log.warning("cannot tag the image that runs now", service=service.name, id=container.image_id)
            state.kept_images[container.image] = container.image_id
    if builders:
        log.info("building", services=" ".join(builders))
        compose("build", *builders, kind="build")
    pulls = [s.name for s in wanted if s.pulls and not _is_here(s.image)]
    if pulls:
        log.info("pulling", services=" ".join(pulls))
        compose("pull", "--quiet", *pulls, kind="build")
    for volume in sorted({v for s in wanted for v in s.volumes}):  # one that is there stays as it is
        run(["docker", "volume", "create", volume], timeout=60, kind="build")


def bring_back(config: Config, state: State, log: Log, model: Model, names: Iterable[str], lock: int) -> None:
    """Give the built images of `names` back what they were; one that was not kept is built from the clone."""
    missing = set()
    for image, builder in sorted({(s.image, s.builder) for s in map(model.services.__getitem__, names) if s.builder}):
        kept = state.kept_images.get(image, "")
        if kept and run(["docker", "tag", kept, image], timeout=60, check=False).code == 0:
            log.info("previous image restored", image=image, id=kept[:19])
        else:
            missing.add(builder)
    if missing:
        log.warning("no previous image was kept; building", services=" ".join(sorted(missing)))
        Compose(config, config.path, lock)("build", *sorted(missing), kind="build")


def _keep_tag(config: Config, service: str) -> str:
    """A tag that protects the previous image from `docker image prune`."""
    return f"reading-hub-gitops-previous:{config.name}-{service.lower()}"[:150]


def _is_here(reference: str) -> bool:
    """Whether the image is on this machine."""
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", reference], timeout=60, check=False).code == 0
