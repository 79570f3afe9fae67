"""The product's images: what each is made of, the tag that follows from it, and how it is built.

A tag is a digest of everything that goes into the image. So `imagePullPolicy: IfNotPresent` is right (other content is
another name, and a Deployment rolls it out), and an unchanged image is recognised without building.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.cluster.images import buildah
from tests.cluster.images.base import local_base
from tests.cluster.images.context import snapshot
from tests.cluster.paths import IMAGES_ENV, REPOSITORY
from tests.cluster.shell import Word, run, step, succeeds


@dataclass(frozen=True)
class Image:
    """One image of the product, built from `images/NAME/Dockerfile`."""

    name: str
    folder: str
    target: str
    sources: tuple[str, ...]
    """files and folders of the repository that it is made of"""
    variable: str
    """name under which its reference is handed on"""


OPERATOR = Image(
    name="falcon-operator",
    folder="operator",
    target="operator",
    sources=("images/operator", "requirements-build.lock", "operator", "trainer"),
    variable="FALCON_OPERATOR_IMAGE",
)
TRAINER = Image(
    name="falcon-trainer",
    folder="trainer",
    target="trainer",
    sources=("images/trainer", "requirements-build.lock", "trainer"),
    variable="FALCON_TRAINER_IMAGE",
)
IMAGES = (OPERATOR, TRAINER)


class Engine(Protocol):
    """Whatever builds a Dockerfile here."""

    def base(self) -> str:
        """The base image to build on."""

    def exists(self, reference: str) -> bool: ...

    def build(self, image: Image, reference: str, context: Path) -> None: ...


class Buildah:
    """buildah on our own storage and a base of Debian packages: needs root, but no daemon and no registry."""

    def base(self) -> str:
        return os.environ.get("FALCON_BASE_IMAGE") or local_base()

    def exists(self, reference: str) -> bool:
        return buildah.exists(reference)

    def build(self, image: Image, reference: str, context: Path) -> None:
        buildah.forget_unfinished()
        buildah.make_room()
        # The host's network: a sandbox may have no other way to the package registries.
        options: list[Word] = ["--quiet", "--layers", "--network", "host"]
        buildah.buildah("bud", *options, *_arguments(image, reference, self.base(), context))


@dataclass(frozen=True)
class ContainerEngine:
    """Docker or Podman, with the base image from a registry."""

    program: str

    def base(self) -> str:
        return os.environ.get("FALCON_BASE_IMAGE") or "python:3.12-slim"

    def exists(self, reference: str) -> bool:
        return succeeds([self.program, "image", "inspect", reference])

    def build(self, image: Image, reference: str, context: Path) -> None:
        run([self.program, "build", "--quiet", *_arguments(image, reference, self.base(), context)])


def container_engine() -> str | None:
    """The container engine that really answers: a client without its daemon does not count."""
    for program in ("docker", "podman"):
        if shutil.which(program) and succeeds([program, "info"]):
            return program
    return None


def build_images(engine: Engine) -> dict[Image, str]:
    """Build what has changed; returns the references, and writes them to `.run/images.env` for helm and tests."""
    references = {}
    with buildah.building():
        for image in IMAGES:
            references[image] = _build_unless_there(engine, image)
    record(references)
    return references


def _build_unless_there(engine: Engine, image: Image) -> str:
    with tempfile.TemporaryDirectory(prefix="falcon-context-") as context:
        content = snapshot(REPOSITORY, image.sources, Path(context))
        made_of = hashlib.sha256(f"{engine.base()}\0{content}".encode()).hexdigest()
        reference = f"localhost/{image.name}:{made_of[:12]}"
        if not engine.exists(reference):
            with step(f"building {reference}"):
                engine.build(image, reference, Path(context))
    return reference


def record(references: dict[Image, str]) -> None:
    """Write the references where the demo and the tests look for them."""
    IMAGES_ENV.parent.mkdir(exist_ok=True)
    IMAGES_ENV.write_text("".join(f"{image.variable}={reference}\n" for image, reference in references.items()))


def _arguments(image: Image, reference: str, base: str, context: Path) -> list[Word]:
    dockerfile = context / "images" / image.folder / "Dockerfile"
    arguments: list[Word] = ["--file", dockerfile, "--target", image.target, "--build-arg", f"BASE={base}"]
    return [*arguments, "--tag", reference, context]
