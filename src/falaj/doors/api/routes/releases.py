"""Releases: immutable, signed, with their evidence."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.releases import Manifest, Release, ReleaseDiff
from falaj.facts.scoring import ScoreJob

__all__ = ["ROUTES", "CreateRelease", "PushRelease", "SignRelease"]


class CreateRelease(msgspec.Struct, forbid_unknown_fields=True):
    run: str = ""
    version: str = ""


class PushRelease(msgspec.Struct, forbid_unknown_fields=True):
    """to: an address that [[links.remotes]] covers. move_tag: let the tag name another release."""

    to: str
    move_tag: bool = False


class PushedRelease(msgspec.Struct):
    """address: with the digest that names it there. there: files that lay there before."""

    release: Release
    address: str
    digest: str
    tag: str
    sent: int
    sent_bytes: int
    there: int


class SignRelease(msgspec.Struct, forbid_unknown_fields=True):
    """release: by version or id."""

    release: str


class SignedView(msgspec.Struct):
    release: Release
    key: str


class ReleaseView(msgspec.Struct):
    release: Release
    manifest: Manifest
    findings: list[str]


@post("/releases", needs=Action.CREATE_RELEASE, on=ResourceKind.PROJECT, status=201)
def create_release(works: Works, permit: Permit, data: CreateRelease) -> Release:
    """Build and sign the folder of a run's model with its evidence."""
    from falaj.journeys import promote

    return promote.release(works.ground, permit, data.run, data.version)


@post("/release-signatures", needs=Action.SIGN_RELEASE, on=ResourceKind.PROJECT, status=201)
def sign_release(works: Works, permit: Permit, data: SignRelease) -> SignedView:
    """Add the signature of whoever asks, with the own key."""
    from falaj.journeys import keys, promote

    found = promote.release_named(works.ground, data.release)
    return SignedView(found, keys.sign_again(works.ground, permit, found))


@get("/releases", needs=Action.READ, on=ResourceKind.PROJECT)
def list_releases(works: Works, limit: Limit = 50, after: str = "") -> list[Release]:
    return works.ground.store.find(Release, limit=min(limit, 1000), after=after)


@get("/releases/{release:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_release(works: Works, release: str) -> ReleaseView:
    """One release, verified again now."""
    from falaj.journeys import promote

    found = promote.release_named(works.ground, release)
    manifest, findings = promote.look_at(works.ground, found)
    return ReleaseView(found, manifest, findings)


@get("/releases/{release:str}/card/{form:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_card(works: Works, release: str, form: str) -> Response[bytes]:
    """The model card as it was signed: markdown, en or ar (pages); verified again now."""
    from falaj.journeys import promote

    card = promote.card_of(works.ground, promote.release_named(works.ground, release), form)
    return Response(card, media_type="text/markdown" if form == "markdown" else "text/html")


@get("/releases/{release:str}/diff/{other:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def diff_releases(works: Works, release: str, other: str) -> ReleaseDiff:
    """What differs from the first release to the other one; both are verified again now."""
    from falaj.journeys import promote

    return promote.difference(works.ground, release, other)


@post("/releases/{release:str}/push", needs=Action.PUSH_RELEASE, on=ResourceKind.PROJECT)
def push_release(works: Works, permit: Permit, release: str, data: PushRelease) -> PushedRelease:
    """Bring a release to an OCI registry or a bucket that falaj.toml lists."""
    from falaj.journeys import promote, remotes

    found = promote.release_named(works.ground, release)
    done = remotes.push(works.ground, permit, found, data.to, move=data.move_tag)
    return PushedRelease(
        found, done.address, done.digest, done.tag, done.sent, done.sent_bytes, done.there
    )


class ScoringBegun(msgspec.Struct, forbid_unknown_fields=True):
    """input, output: addresses, of which the log keeps the last word."""

    input: str
    output: str


@post("/releases/{release:str}/scoring", needs=Action.SCORE, on=ResourceKind.PROJECT)
def begin_scoring(works: Works, permit: Permit, release: str, data: ScoringBegun) -> Release:
    """Ask whether a release may answer a whole table here, and say that it is about to."""
    from falaj.journeys import promote, score

    found = promote.release_named(works.ground, release)
    manifest, _ = promote.look_at(works.ground, found)
    return score.begun(works.ground, permit, found, manifest, input=data.input, output=data.output)


@post("/releases/{release:str}/scored", needs=Action.SCORE, on=ResourceKind.PROJECT)
def end_scoring(works: Works, permit: Permit, release: str, data: ScoreJob) -> Release:
    """Write down what a finished job made, by its digests."""
    from falaj.journeys import promote, score

    return score.ended(works.ground, permit, promote.release_named(works.ground, release), data)


ROUTES: Final = (
    create_release,
    sign_release,
    list_releases,
    show_release,
    show_card,
    diff_releases,
    push_release,
    begin_scoring,
    end_scoring,
)
