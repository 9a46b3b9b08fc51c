"""Addresses of releases, and what docker's auth file says about who we are."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.base.errors import FalajError
from falaj.facts.project import RemoteTable
from falaj.journeys.remotes import listed
from falaj.links.oci.address import Address, is_loopback, read_address
from falaj.links.oci.credentials import Login, login_for

DIGEST = "sha256:" + "a" * 64
GOOD = {
    "oci://registry.example/model": Address("registry.example", "model"),
    "oci://r.example:5000/a/b-c/d_e:1.0.0": Address("r.example:5000", "a/b-c/d_e", "1.0.0"),
    f"oci://localhost/a@{DIGEST}": Address("localhost", "a", "", DIGEST),
    f"oci://[::1]:5000/a:v1@{DIGEST}": Address("[::1]:5000", "a", "v1", DIGEST),
}


@pytest.mark.parametrize(("text", "address"), GOOD.items())
def test_an_address(text, address):
    assert read_address(text) == address


BAD = (
    "", "registry.example/a", "https://registry.example/a", "oci://", "oci://host", "oci://host/",
    "oci://host/A", "oci://host/../a", "oci://host/a/../b", "oci://host//a", "oci://host/a:",
    "oci://host/a:-x", "oci://host/a:x y", "oci://host/a@sha256:123", "oci://host/a@md5:" + "a" * 32,
    "oci://host/a?x=1", "oci://host/a#x", "oci://ho st/a", "oci://host:port/a", "oci://-host/a",
    "oci://host/a\n", "oci://host/" + "a" * 300, "oci://host/a:" + "x" * 129, "oci:///a",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_none(text):
    with pytest.raises(FalajError) as caught:
        read_address(text)
    assert caught.value.code == "remote.bad-address"
    assert str(caught.value).isprintable()


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(FalajError) as caught:
        read_address("oci://aisha:sesame@registry.example/a")
    assert "sesame" not in repr(caught.value.problems)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_an_address_or_an_error_in_words(text):
    try:
        found = read_address(f"oci://{text}")
    except FalajError as error:
        assert error.code == "remote.bad-address"
    else:
        assert found.repository
        assert "@" not in found.host + found.repository


HOSTS = {
    "127.0.0.1": True, "127.0.0.1:5000": True, "localhost:1": True, "[::1]:1": True, "[::1]": True,
    "localhost.evil.example": False, "127.0.0.1.evil.example": False, "registry.example": False,
    "10.0.0.1:5000": False, "[::2]:5000": False,
}  # fmt: skip


@pytest.mark.parametrize(("host", "here"), HOSTS.items())
def test_this_machine(host, here):
    assert is_loopback(host) is here


TABLES = (
    RemoteTable(address="oci://r.example", region="ae"),
    RemoteTable(address="oci://r.example/team", region="sa"),
    RemoteTable(address="s3://bucket/", region="om", endpoint="https://s3.example.org"),
)
LISTED = {
    "oci://r.example/other/x": "ae",
    "oci://r.example/team": "sa",
    "oci://r.example/team/x:1": "sa",
    "oci://r.example/team:1": "sa",
    "oci://r.example/teams/x": "ae",
    "s3://bucket/x": "om",
}


@pytest.mark.parametrize(("address", "region"), LISTED.items())
def test_the_longest_entry_counts(address, region):
    assert listed(TABLES, address).region == region


@pytest.mark.parametrize(
    "address", ["oci://r.example.evil/x", "oci://other/x", "s3://bucket2/x", ""]
)
def test_what_no_entry_names(address):
    with pytest.raises(FalajError) as caught:
        listed(TABLES, address)
    assert caught.value.code == "remote.not-listed"


# --- who we are ----------------------------------------------------------------------------------


def pair(text):
    return base64.b64encode(text.encode()).decode()


def config(tmp_path, told):
    path = tmp_path / "config.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return {"DOCKER_CONFIG": str(tmp_path), "HOME": "/nowhere", "PATH": str(tmp_path)}


SAID = {
    "a pair": ({"auths": {"r.example": {"auth": pair("aisha:a:b")}}}, Login("aisha", "a:b")),
    "with https": ({"auths": {"https://r.example": {"auth": pair("a:b")}}}, Login("a", "b")),
    "a token": ({"auths": {"r.example": {"identitytoken": "t", "auth": ""}}}, Login(identity="t")),
    "another host": ({"auths": {"r.example:5000": {"auth": pair("a:b")}}}, None),
    "an empty entry": ({"auths": {"r.example": {}}}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("told", "login"), SAID.values(), ids=SAID)
def test_what_the_file_says(tmp_path, told, login):
    assert login_for("r.example", config(tmp_path, told)) == login


UNUSABLE = {
    "no JSON": "{",
    "a list": "[]",
    "no base64": {"auths": {"r.example": {"auth": "???"}}},
    "no colon": {"auths": {"r.example": {"auth": pair("aisha")}}},
    "no table": {"auths": {"r.example": "x"}},
    "no tables": {"auths": []},
    "a helper that is not there": {"credHelpers": {"r.example": "none"}},
    "a helper that leads out": {"credHelpers": {"r.example": "../evil"}},
    "a helper that is no name": {"credHelpers": {"r.example": {"a": 1}}},
}


@pytest.mark.parametrize("told", UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used(tmp_path, told):
    with pytest.raises(FalajError) as caught:
        login_for("r.example", config(tmp_path, told))
    assert caught.value.code == "remote.bad-credentials"


def test_the_file_that_the_variable_names_comes_first(tmp_path):
    environ = config(tmp_path, {"auths": {"r.example": {"auth": pair("a:b")}}})
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"auths": {"r.example": {"auth": pair("c:d")}}}))
    assert login_for("r.example", {**environ, "REGISTRY_AUTH_FILE": str(other)}) == Login("c", "d")
    with pytest.raises(FalajError):
        login_for("r.example", {**environ, "REGISTRY_AUTH_FILE": str(tmp_path / "gone")})


def test_no_file_is_nobody(tmp_path):
    assert login_for("r.example", {"HOME": str(tmp_path)}) is None


HELPERS = {
    "a pair": (
        'echo "{\\"Username\\":\\"a\\",\\"Secret\\":\\"$(cat)\\"}"',
        Login("a", "r.example"),
    ),
    "a token": ('echo \'{"Username":"<token>","Secret":"t"}\'', Login(identity="t")),
    "nothing": ('echo "credentials not found in native keychain"; exit 1', None),
    "it fails": ("exit 3", "refused"),
    "it babbles": ("echo hello", "refused"),
}


@pytest.mark.parametrize(("script", "login"), HELPERS.values(), ids=HELPERS)
@pytest.mark.parametrize("kept", ["credHelpers", "credsStore"])
def test_a_helper_is_asked(tmp_path, script, login, kept):
    helper = tmp_path / "docker-credential-own"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    told = {"credHelpers": {"r.example": "own"}}
    if kept == "credsStore":
        told = {"credsStore": "own", "auths": {"r.example": {}}}
    environ = {**config(tmp_path, told), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    if login == "refused":
        with pytest.raises(FalajError):
            login_for("r.example", environ)
    else:
        assert login_for("r.example", environ) == login
