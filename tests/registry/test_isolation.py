"""Each plugin that is broken, in whatever way, is shown with its reason and stops no other."""

from __future__ import annotations

import json
import sys
import types

import pytest

from nicoffload.driver import API_VERSION, Driver, DriverFactory
from nicoffload.errors import NotFoundError, PluginContractError, PluginError, PluginLoadError
from nicoffload.hookspecs import PluginDescription, hookimpl
from nicoffload.model import DeviceInfo
from nicoffload.registry import load_registry

GOOD = """
from nicoffload.hookspecs import PluginDescription, hookimpl
from importlib.resources import files

@hookimpl
def nicoffload_describe():
    return PluginDescription(name={name!r}, title="A test", api_version=1)
"""

PROFILES = """
@hookimpl
def nicoffload_profiles():
    return [files(__name__).joinpath(name) for name in {families!r}]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a distribution with one plugin and put it on the path, as an installer would."""
    monkeypatch.delenv("NICOFFLOAD_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def install(name, source, *, families=(), distribution=None, module=None):
        module = module or f"zz_{name}"
        package = tmp_path / module
        package.mkdir()
        for family in families:
            (package / f"{family}.json").write_text("{}")
        (package / "__init__.py").write_text(source)
        distribution = distribution or f"plugin-{name}"
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[nicoffload.plugins]\n{name} = {module}\n")
        made.append(module)

    yield install
    for module in made:
        sys.modules.pop(module, None)


BROKEN = {
    "import fails": ("import no_such_module\n", PluginLoadError, "ModuleNotFoundError"),
    "import exits": ("raise SystemExit(3)\n", PluginLoadError, "SystemExit"),
    "syntax error": ("def (\n", PluginLoadError, "SyntaxError"),
    "bad signature": (
        GOOD.format(name="broken") + "@hookimpl\ndef nicoffload_drivers(colour): return []\n",
        PluginLoadError,
        "colour",
    ),
    "misspelt hook": (
        GOOD.format(name="broken") + "@hookimpl\ndef nicoffload_drivres(): return []\n",
        PluginLoadError,
        "nicoffload_drivres",
    ),
    "other API": (
        GOOD.format(name="broken").replace("api_version=1", "api_version=99"),
        PluginLoadError,
        "API version 99",
    ),
    "describe raises": (
        "from nicoffload.hookspecs import hookimpl\n@hookimpl\ndef nicoffload_describe(): raise RuntimeError('boom')\n",
        PluginContractError,
        "boom",
    ),
    "describe returns rubbish": (
        "from nicoffload.hookspecs import hookimpl\n@hookimpl\ndef nicoffload_describe(): return 'broken'\n",
        PluginContractError,
        "no PluginDescription",
    ),
    "no describe": ("x = 1\n", PluginContractError, "does not say who it is"),
    "other name": (GOOD.format(name="someone"), PluginContractError, "calls itself 'someone'"),
    "drivers are none": (
        GOOD.format(name="broken") + "@hookimpl\ndef nicoffload_drivers(): return [1]\n",
        PluginContractError,
        "no DriverFactory",
    ),
    "profiles are none": (
        GOOD.format(name="broken") + "@hookimpl\ndef nicoffload_profiles(): return ['a.json']\n",
        PluginContractError,
        "no Traversable",
    ),
    "profile is not there": (
        GOOD.format(name="broken") + PROFILES.format(families=["gone.json"]),
        PluginContractError,
        "no JSON file",
    ),
    "drivers raise": (
        GOOD.format(name="broken") + "@hookimpl\ndef nicoffload_drivers(): return 1 / 0\n",
        PluginContractError,
        "ZeroDivisionError",
    ),
    "a hook returns nothing": (
        GOOD.format(name="broken") + "@hookimpl\ndef nicoffload_drivers(): return 5\n",
        PluginContractError,
        "nicoffload_drivers",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_shown_and_stops_no_other(install, fault):
    source, kind, words = BROKEN[fault]
    install("broken", source)
    install(
        "alpha", GOOD.format(name="alpha") + PROFILES.format(families=["zz_one.json"]), families=["zz_one"]
    )
    install("omega", GOOD.format(name="omega"))
    registry = load_registry(only=["alpha", "broken", "omega"])
    status = {each.name: each for each in registry.plugins}
    assert [status[name].ok for name in ("alpha", "broken", "omega")] == [True, False, True]
    assert status["alpha"].error is None
    error = status["broken"].error
    assert isinstance(error, kind)
    assert words in str(error)
    assert error.__cause__ is not None or kind is PluginContractError or fault == "other API"
    assert (status["broken"].distribution, status["broken"].version) == ("plugin-broken", "1.2")
    assert status["alpha"].families == ("zz_one",)
    assert status["alpha"].hooks == ("nicoffload_describe", "nicoffload_profiles")
    assert list(registry.profiles.families()) == ["zz_one"]
    assert [each.name for each in registry.failed] == ["broken"]


def test_a_misspelt_hook_gets_the_right_name(install):
    install("broken", BROKEN["misspelt hook"][0])
    (status,) = load_registry(only=["broken"]).plugins
    assert status.error.hint == "did you mean nicoffload_drivers?"


def test_two_plugins_with_one_family(install):
    for name in ("alpha", "beta"):
        install(
            name, GOOD.format(name=name) + PROFILES.format(families=["zz_same.json"]), families=["zz_same"]
        )
    registry = load_registry(only=["alpha", "beta"])
    alpha, beta = registry.plugins
    assert alpha.ok
    assert not beta.ok
    assert "brings family zz_same, which plugin alpha brings already" in str(beta.error)


def test_two_plugins_of_one_name(install):
    install("alpha", GOOD.format(name="alpha"))
    install("alpha", GOOD.format(name="alpha"), distribution="plugin-other", module="zz_other")
    assert [each.ok for each in load_registry(only=["alpha"]).plugins] == [True, False]


def test_a_profile_that_breaks_its_schema_is_found_when_it_is_asked_for(install):
    install(
        "alpha", GOOD.format(name="alpha") + PROFILES.format(families=["zz_bad.json"]), families=["zz_bad"]
    )
    registry = load_registry(only=["alpha"])
    assert registry.plugins[0].ok
    (checked,) = registry.check_profiles()
    assert "profile zz_bad" in str(checked.error)
    assert checked.error.__cause__ is not None


def test_a_name_that_is_not_installed_is_shown(install, monkeypatch):
    install("alpha", GOOD.format(name="alpha"))
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "alpha, alhpa,")
    alpha, wrong = load_registry().plugins
    assert alpha.ok
    assert not wrong.ok
    assert wrong.error.hint == "did you mean alpha?"


def test_the_environment_restricts_and_the_program_overrules(install, monkeypatch):
    install("alpha", GOOD.format(name="alpha"))
    install("beta", GOOD.format(name="beta"))
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "beta")
    assert [each.name for each in load_registry().plugins] == ["beta"]
    assert [each.name for each in load_registry(only=["alpha"]).plugins] == ["alpha"]
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "")
    assert load_registry().plugins == ()


class Factory(DriverFactory):
    """Does what a test says."""

    def __init__(self, *, claims=True, open=None, discover=()):  # noqa: A002 - names of the contract
        self._claims, self._open, self._discover = claims, open, discover

    def discover(self, context):
        return _do(self._discover)

    def claims(self, name):
        return _do(self._claims)

    def open(self, name, context):
        return _do(self._open)


def _do(what):
    if isinstance(what, BaseException):
        raise what
    return what


def plugin(name, factory):
    made = types.ModuleType(name)

    @hookimpl
    def nicoffload_describe():
        return PluginDescription(name=name, title="", api_version=API_VERSION)

    @hookimpl
    def nicoffload_drivers():
        return [factory]

    made.nicoffload_describe = nicoffload_describe
    made.nicoffload_drivers = nicoffload_drivers
    return made


INFO = DeviceInfo(name="x:1", family="f", title="", plugin="x")


def test_one_plugin_that_fails_to_look_hides_no_other_nic():
    registry = load_registry(
        only=(),
        extra=[plugin("a", Factory(discover=RuntimeError("udev"))), plugin("b", Factory(discover=[INFO]))],
    )
    assert list(registry.devices()) == [INFO]
    _, errors = registry.discover()
    assert [str(error) for error in errors] == ["plugin a: can't look for NICs: RuntimeError: udev"]
    assert isinstance(errors[0].__cause__, RuntimeError)


def test_a_name_goes_to_the_next_plugin_when_the_first_does_not_know_it():
    wanted = types.new_class("Wanted", (Driver,))
    wanted.__abstractmethods__ = frozenset()
    driver = wanted()
    registry = load_registry(
        only=(),
        extra=[
            plugin("a", Factory(claims=False)),
            plugin("b", Factory(open=NotFoundError("not mine"))),
            plugin("c", Factory(open=driver)),
        ],
    )
    assert registry.open("x:1") is driver


@pytest.mark.parametrize(
    ("factory", "kind", "words"),
    [
        (Factory(open=ValueError("bug")), PluginContractError, "ValueError: bug"),
        (Factory(open="no driver"), PluginContractError, "returned 'no driver'"),
        (Factory(claims=ValueError("bug")), PluginContractError, "claims"),
        (Factory(open=NotFoundError("gone")), NotFoundError, "gone"),
    ],
)
def test_a_plugin_that_breaks_while_opening(factory, kind, words):
    with pytest.raises(kind, match=words) as caught:
        load_registry(only=(), extra=[plugin("a", factory)]).open("x:1")
    assert isinstance(caught.value, PluginError | NotFoundError)


def test_an_unknown_name_gets_near_ones_and_what_failed(install):
    install("broken", "import no_such_module\n")
    registry = load_registry(only=["broken"], extra=[plugin("a", Factory(claims=False, discover=[INFO]))])
    with pytest.raises(NotFoundError) as caught:
        registry.open("x:2")
    assert "near: x:1" in caught.value.hint
    assert "plugin broken is not in use" in caught.value.hint


def test_extra_plugins_are_isolated_too():
    registry = load_registry(only=(), extra=[object(), plugin("a", Factory())])
    assert [each.ok for each in registry.plugins] == [False, True]


def test_the_plugins_of_this_repository(monkeypatch):
    monkeypatch.delenv("NICOFFLOAD_PLUGINS", raising=False)
    registry = load_registry()
    status = {each.name: each for each in registry.plugins}
    for name in ("intel", "mellanox", "solarflare"):
        assert status[name].ok, status[name].error
        assert status[name].distribution == f"nicoffload-{name}"
        assert status[name].families
        assert "drivers" in status[name].title
    assert json.dumps(sorted(registry.profiles.families()))
