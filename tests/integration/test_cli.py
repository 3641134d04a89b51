"""The commands for people: `manage.py actors`, `runners`, `pools`, `tokens` and `namespaces`."""

import io
import json
import re
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from actors import services
from actors.models import Actor
from orchestrator.models import AccessToken, Namespace, TimelineEntry
from orchestrator.tokens import authorise
from orchestrator.verbs import Progress, table, told
from runners.models import RunnerConfig
from tests.support.management import make_actor, make_destroyed_actor, make_pool, make_runner, signals
from tests.support.turns import settle
from tests.support.workers import working

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN_ID = "0" * 30
LIFESPAN = timedelta(minutes=15)


def run(*arguments):
    out = io.StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def read(*arguments):
    return json.loads(run(*arguments, "--json"))


class TestActors:
    def test_they_are_listed_newest_first_in_columns(self, namespace):
        old, new = make_actor(namespace, name="chat", key="a b"), make_actor(namespace, minutes=1)
        make_destroyed_actor(namespace)
        head, *lines = run("actors", "list").splitlines()
        assert head.split() == [
            *("actor_id", "name", "key", "runner_name_selector", "status", "generation", "create_ts"),
        ]
        assert [line.split()[0] for line in lines] == [new.pk, old.pk]
        assert "a b" in lines[1]
        assert "2026-06-01 12:00:00" in lines[1]

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ([], {"a", "b", "c"}),
            (["--name", "n"], {"b", "c"}),
            (["--name", "n", "--key", "k"], {"c"}),
            (["--pool", "p"], {"a"}),
            (["--status", "asleep"], {"a", "b", "c"}),
            (["--status", "running"], set()),
            (["--status", "destroyed"], {"d"}),
            (["--destroyed", "--name", "n"], {"b", "c", "d"}),
            (["--limit", "1"], {"c"}),
        ],
    )
    def test_filters_narrow_a_list(self, namespace, filters, found):
        other = Namespace.objects.create(name="other", display_name="Other")
        ids = {
            make_actor(namespace, pool_name="p").pk: "a",
            make_actor(namespace, minutes=1, name="n").pk: "b",
            make_actor(namespace, minutes=2, name="n", key="k").pk: "c",
            make_destroyed_actor(namespace, name="n").pk: "d",
            make_actor(other).pk: "other",
        }
        assert {ids[row["actor_id"]] for row in read("actors", "list", *filters)} == found

    def test_a_state_that_does_not_exist_is_told(self, namespace):
        with pytest.raises(CommandError, match="one of created, pending"):
            run("actors", "list", "--status", "nonsense")

    def test_one_is_made_as_by_the_api_and_shown(self, namespace, tmp_path):
        make_pool(namespace)
        (tmp_path / "input").write_bytes(b"\0in")
        options = ["--pool", "pool", "--key", "k", "--input", tmp_path / "input", "--crash-policy", "restart"]
        made = read("actors", "create", "chat", *options)
        actor = Actor.objects.get(pk=made["actor_id"])
        assert (actor.name, actor.key, bytes(actor.input), actor.crash_policy) == ("chat", "k", b"\0in", "restart")
        shown = run("actors", "show", actor.pk)
        assert f"actor_id               {actor.pk}" in shown
        assert "status                 created" in shown
        with pytest.raises(CommandError, match=f"duplicate_key: .*existing_actor_id={actor.pk}"):
            run("actors", "create", "chat", "--pool", "pool", "--key", "k")

    @pytest.mark.parametrize(
        ("verb", "sent"), [("sleep", "sleep"), ("wake", "wake"), ("reschedule", "reschedule")]
    )
    def test_several_are_told_something(self, namespace, verb, sent):
        actors = [make_actor(namespace) for _ in range(3)]
        assert run("actors", verb, actors[0].pk, actors[1].pk).startswith("2 told to ")
        assert [signals("actors", actor.pk)[0]["t"] for actor in actors[:2]] == [sent, sent]
        assert signals("actors", actors[2].pk) == []

    def test_all_that_a_filter_leaves_are_destroyed(self, namespace):
        doomed = [make_actor(namespace, name="old", key=str(n)) for n in range(5)]
        spared = make_actor(namespace, name="new")
        with working():
            assert run("actors", "destroy", "--all", "--name", "old") == "5 destroyed\n"
        assert Actor.objects.filter(pk__in=[one.pk for one in doomed], destroyed_at=None).count() == 0
        spared.refresh_from_db()
        assert spared.destroyed_at is None

    @pytest.mark.parametrize(
        "arguments", [[], ["--name", "n"], [UNKNOWN_ID, "--all"], [UNKNOWN_ID, "--name", "n"]], ids=str
    )
    def test_what_is_meant_must_be_said(self, namespace, arguments):
        with pytest.raises(CommandError, match="either ids, or --all"):
            run("actors", "sleep", *arguments)

    def test_nothing_is_done_if_one_of_the_ids_is_unknown(self, namespace):
        actor = make_actor(namespace)
        with pytest.raises(CommandError, match=f"not in this namespace: {UNKNOWN_ID}"):
            run("actors", "sleep", actor.pk, UNKNOWN_ID)
        assert signals("actors", actor.pk) == []

    def test_one_that_fails_stops_no_other_and_is_told(self, namespace, monkeypatch):
        actors = [make_actor(namespace) for _ in range(3)]
        monkeypatch.setattr(services, "DESTROY_SECONDS", 0.2)  # and no worker
        out = io.StringIO()
        with pytest.raises(CommandError, match=f"{actors[0].pk}: actor.destruction_unconfirmed"):
            call_command("actors", "destroy", *(one.pk for one in actors), "--json", stdout=out)
        assert {row["id"]: row["ok"] for row in json.loads(out.getvalue())} == {one.pk: False for one in actors}

    def test_an_actor_of_another_namespace_is_not_there(self, namespace):
        actor = make_actor(Namespace.objects.create(name="other", display_name="Other"))
        for verb in ("show", "explain", "timeline"):
            with pytest.raises(CommandError, match=r"actor\.not_found"):
                run("actors", verb, actor.pk)
            assert run("actors", verb, actor.pk, "--namespace", "other")

    def test_explain_and_timeline_are_the_commands_of_that_name(self, namespace):
        actor = make_actor(namespace)
        for verb in ("explain", "timeline"):
            assert run("actors", verb, actor.pk) == run(verb, actor.pk)
            assert read("actors", verb, actor.pk) == json.loads(run(verb, actor.pk, "--json"))
        assert run("actors", "timeline", actor.pk, "--mermaid") == run("timeline", actor.pk, "--mermaid")


class TestRunners:
    def test_they_are_listed_and_shown(self, namespace):
        here = make_runner(namespace, "a")
        gone = make_runner(namespace, "b", minutes=1, state="stopped", stop_at=here.created_at)
        assert [row["runner_id"] for row in read("runners", "list")] == [here.pk]
        assert [row["runner_id"] for row in read("runners", "list", "--stopped")] == [gone.pk, here.pk]
        assert read("runners", "list", "--pool", "other") == []
        assert read("runners", "show", here.pk)["state"] == "live"
        with pytest.raises(CommandError, match="not in this namespace"):
            run("runners", "show", UNKNOWN_ID)

    def test_they_are_sent_away(self, namespace):
        make_pool(namespace)
        one, two = make_runner(namespace, "a"), make_runner(namespace, "b")
        assert run("runners", "drain", one.pk, "--grace", "1.5") == "1 told to drain\n"
        assert run("runners", "drain", "--all", "--pool", "pool") == "2 told to drain\n"
        assert run("runners", "evict", two.pk) == "1 told to go\n"
        drain = {"t": "drain", "by": "operator"}
        assert signals("runners", one.pk) == [drain | {"grace_ms": 1_500}, drain | {"grace_ms": 30_000}]
        assert signals("runners", two.pk)[1:] == [{"t": "evict", "by": "operator"}]

    def test_an_evicted_runner_is_gone_and_its_timeline_says_by_whom(self, namespace):
        runner = make_runner(namespace, "a")
        run("runners", "evict", runner.pk)
        settle()
        runner.refresh_from_db()
        assert runner.state in ("evicting", "stopped")
        assert TimelineEntry.objects.filter(runner_id=runner.pk, label="stop, asked for by hand").exists()


class TestPools:
    def test_a_pool_is_made_replaced_shown_and_removed(self, namespace):
        assert "normal" in run("pools", "create", "pool")
        options = [
            "--url",
            "http://127.0.0.1:9",
            "--header",
            "authorization: Bearer hunter2",
            "--max-runners",
            "3",
        ]
        assert "hunter2" not in run("pools", "create", "pool", *options)
        row = RunnerConfig.objects.get(kind="serverless")
        assert (row.url, row.headers, row.max_runners) == (
            "http://127.0.0.1:9",
            {"authorization": "Bearer hunter2"},
            3,
        )
        assert read("pools", "show", "pool")["headers"] == {"authorization": "(hidden)"}
        assert [pool["name"] for pool in read("pools", "list", "--kind", "serverless")] == ["pool"]
        assert run("pools", "destroy", "pool") == "1 removed\n"
        with pytest.raises(CommandError, match="there is no pool 'pool'"):
            run("pools", "show", "pool")

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (["--url", "ftp://x"], "runner_config.invalid.*scheme http or https"),
            (["--url", "http://169.254.169.254"], "metadata address"),
            (["--url", "http://127.0.0.1", "--header", "x"], "NAME:VALUE"),
        ],
        ids=["scheme", "address", "header"],
    )
    def test_what_the_api_refuses_is_refused(self, namespace, options, why):
        with pytest.raises(CommandError, match=why):
            run("pools", "create", "pool", *options)

    def test_its_runners_are_drained(self, namespace):
        runner = make_runner(namespace, "a")
        make_runner(namespace, "b", name="other")
        assert run("pools", "drain", "pool") == "1 told to drain\n"
        assert signals("runners", runner.pk)[0]["t"] == "drain"


class TestNamespaces:
    def test_one_is_made_and_listed(self, namespace):
        made = read("namespaces", "create", "shop", "--display-name", "The shop")
        assert made["namespace_id"] == Namespace.objects.get(name="shop", display_name="The shop").pk
        run("namespaces", "create", "plain")
        assert [row["display_name"] for row in read("namespaces", "list")] == ["Default", "The shop", "plain"]
        assert [row["name"] for row in read("namespaces", "list", "--limit", "1")] == ["default"]
        with pytest.raises(CommandError, match=r"namespace\.name_not_unique"):
            run("namespaces", "create", "shop")


class TestTokens:
    def test_one_is_made_listed_and_revoked(self, namespace, env):
        env(admin_token="x")
        made = read("tokens", "create", "ci", "--scope", "client", "--scope", "read", "--days", "1")
        assert authorise("client", "default", made["secret"]).namespace == "default"
        [listed] = read("tokens", "list")
        assert listed == {name: value for name, value in made.items() if name != "secret"}
        assert made["secret"] not in run("tokens", "list")
        assert run("tokens", "revoke", made["token_id"]) == "1 revoked\n"
        assert AccessToken.objects.get().revoked_at is not None
        with pytest.raises(CommandError, match=r"token\.not_found"):
            run("tokens", "revoke", UNKNOWN_ID)

    def test_who_makes_one_is_told_that_none_is_asked_for(self, namespace):
        errors = io.StringIO()
        call_command("tokens", "create", "--scope", "read", stdout=io.StringIO(), stderr=errors)
        assert "TORPOR_ADMIN_TOKEN" in errors.getvalue()


@pytest.mark.parametrize("noun", ["actors list", "runners list", "pools list", "tokens list"])
def test_an_unknown_namespace_is_told(db, noun):
    with pytest.raises(CommandError, match=r"namespace\.not_found"):
        run(*noun.split(), "--namespace", "nowhere")


@pytest.mark.parametrize(
    ("noun", "verbs"),
    [
        ("actors", "create destroy explain list reschedule show sleep timeline wake"),
        ("runners", "drain evict list show"),
        ("pools", "create destroy drain list show"),
        ("tokens", "create list revoke"),
        ("namespaces", "create list"),
    ],
    ids=["actors", "runners", "pools", "tokens", "namespaces"],
)
def test_the_help_lists_the_verbs(noun, verbs, capsys):
    with pytest.raises(SystemExit):
        call_command(noun, "--help")
    assert re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE) == verbs.split()


class TestProgress:
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def test_a_terminal_shows_a_bar(self):
        terminal = self.Terminal()
        with Progress(4, "destroyed", terminal) as progress:
            for _ in range(4):
                progress.step()
        assert terminal.getvalue().endswith(f"[{'#' * 30}] 4/4 destroyed\n")
        assert "1/4" in terminal.getvalue()

    def test_elsewhere_and_for_one_there_is_none(self):
        for output, total in [(io.StringIO(), 4), (self.Terminal(), 1)]:
            with Progress(total, "destroyed", output) as progress:
                progress.step()
            assert output.getvalue() == ""


def test_columns_are_as_wide_as_what_is_in_them():
    assert table([["a", "b"], ["long", "c"]]) == ["a     b", "long  c"]


def test_any_error_is_told_in_a_line():
    assert told(ValueError("why")) == "why"
    assert told(ValueError()) == "ValueError"
