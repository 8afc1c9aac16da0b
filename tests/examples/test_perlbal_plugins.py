"""The plugins of perlbal: what they do to requests, their commands, and that UNLOAD leaves nothing behind."""

from __future__ import annotations

import sys

import pytest

import dangagreen as d
from perlbal.commands import Context
from perlbal.program import make_world
from perlbal.selector import host_patterns
from perlbal_worlds import ask, configured, exchange, get, serving

LOADABLE = [
    "AccessControl",
    "AutoRemoveLeadingDir",
    "EchoService",
    "Highpri",
    "Include",
    "MaxContentLength",
    "NotModified",
    "Queues",
    "Redirect",
    "Stats",
    "Throttle",
    "Vhosts",
    "Vpaths",
    "XFFExtras",
]


def web(tmp_path, name="ws", plugins="none", *lines):
    """The configuration of a web server with one file."""
    (tmp_path / "index.html").write_text("hello\n")
    return "\n".join(
        [
            f"CREATE SERVICE {name}",
            "SET role = web_server",
            "SET listen = 127.0.0.1:0",
            f"SET docroot = {tmp_path}",
            f"SET plugins = {plugins}",
            *lines,
            f"ENABLE {name}",
        ]
    )


def context(name):
    return Context(name, True)


NOT_FOUND = b"<h1>404 - Not Found</h1>\n"


# -- the interface


@pytest.mark.parametrize("name", LOADABLE)
@pytest.mark.parametrize("spelt", [str, str.lower, str.upper])
def test_a_plugin_is_loaded_in_any_letter_case_and_leaves_nothing_behind(name, spelt):
    world = make_world()
    role = "selector" if name.startswith("V") else "reverse_proxy" if "proxy" in world.roles else "web_server"
    configured(f"CREATE SERVICE s\nSET role = {role}", world)
    service = world.services["s"]
    before = (dict(world.commands), dict(world.tunables), dict(world.roles), dict(service.hooks), dict(service.setters))
    for _ in range(2):
        configured(f"LOAD {spelt(name)}\nSET s.plugins = {spelt(name)}", world)
        assert service.plugins == [name]
        assert ask(world, "plugins") == [f"s {name}", "."]
        configured(f"UNLOAD {spelt(name)}", world)
        assert service.plugins == []
        hooks = {hook: found for hook, found in service.hooks.items() if found}
        assert (world.commands, world.tunables, world.roles, hooks, service.setters) == before


def test_a_plugin_is_read_again_and_stays_with_its_services():
    world = configured("LOAD highpri\nCREATE SERVICE s\nSET role = web_server\nSET plugins = highpri")
    before = sys.modules["perlbal.plugins.highpri"].PLUGIN
    configured("RELOAD HighPri", world)
    assert sys.modules["perlbal.plugins.highpri"].PLUGIN is not before
    assert world.services["s"].plugins == ["Highpri"]
    assert len(world.services["s"].hooks["make_high_priority"]) == 1


def test_plugins_that_are_not_loaded_are_told_and_the_others_registered():
    world = configured("LOAD stats\nCREATE SERVICE s\nSET role = web_server")
    assert ask(world, "SET s.plugins = Foo, stats bar,stats") == [
        "ERROR: Plugin foo not loaded; not registered for s.",
        "Plugin bar not loaded; not registered for s.",
    ]
    assert world.services["s"].plugins == ["Stats"]
    configured("SET s.plugins = none", world)
    assert world.services["s"].plugins == []


def test_a_selecting_plugin_is_for_selectors():
    world = configured("LOAD vhosts\nLOAD vpaths\nCREATE SERVICE s\nSET role = web_server")
    for name in "vhost", "vpath":
        assert ask(world, f"SET s.plugins = {name}s") == [
            f"ERROR: You can't load the {name} plugin on a service not of role selector."
        ]
    assert world.services["s"].plugins == []


# -- selecting


def test_what_may_stand_for_a_host():
    assert list(host_patterns("A.b.Com.:80")) == ["a.b.com", "*.a.b.com", "*.b.com", "*.com", "*"]
    assert list(host_patterns("")) == ["*"]
    assert list(host_patterns("x")) == ["x", "*.x", "*"]


SELECTOR = """
LOAD vhosts
CREATE SERVICE mgmt
SET role = management
CREATE SERVICE sel
SET role = selector
SET listen = 127.0.0.1:0
SET plugins = vhosts
VHOST a.com = one
VHOST *.b.com = TWO
VHOST m.com = mgmt
VHOST gone.com = gone
VHOST x.com;using:Y.com = one
VHOST sel s.com = sel
ENABLE sel
"""


@pytest.fixture
def selector(tmp_path):
    for name in "one", "two":
        (tmp_path / name).mkdir()
    text = web(tmp_path / "one", "one") + "\n" + web(tmp_path / "two", "two")
    with serving(SELECTOR + text) as world:
        (tmp_path / "one" / "index.html").write_text("one")
        (tmp_path / "two" / "index.html").write_text("two")
        yield world


@pytest.mark.parametrize(
    ("host", "code", "body"),
    [
        ("a.com", 200, b"one"),
        ("A.Com.", 200, b"one"),
        ("a.com:8080", 200, b"one"),
        ("b.com", 200, b"two"),
        ("x.y.b.com", 200, b"two"),
        ("ab.com", 404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vhost)"),
        ("gone.com", 404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vhost)"),
        ("m.com", 500, b"<h1>500 - Internal Server Error</h1>\nCan't map to service type management"),
        ("s.com", 500, b"<h1>500 - Internal Server Error</h1>\nCan't map to service type selector"),
        ("", 404, b"<h1>404 - Not Found</h1>\nNot Found (no configured vhost)"),
    ],
)
def test_vhosts(selector, host, code, body):
    assert get(selector, "sel", "/", f"Host: {host}")[::2] == (code, body)


def test_a_default_service_gets_what_is_not_mapped_and_answers_once(selector):
    configured("SET sel.default_service = two", selector)
    assert exchange(selector, "sel", "GET / HTTP/1.0\r\nHost: else\r\n\r\n").count(b"HTTP/1.0") == 1
    assert get(selector, "sel", "/", "Host: else")[2] == b"two"
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"one"


def test_another_host_than_the_one_that_was_asked(selector):
    path = "/__using/y.com/index"
    assert get(selector, "sel", path, "Host: x.com")[0] == 404  # of the service
    code, _, body = get(selector, "sel", path, "Host: z.com")
    assert (code, body) == (404, b"<h1>404 - Not Found</h1>\nVhost twiddling not configured for requested pair.")


def test_a_kept_connection_is_back_at_the_selector_after_each_response(selector):
    configured("SET sel.persist_client = on\nSET one.persist_client = on", selector)
    requests = [f"GET / HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n" for host in ("a.com", "b.com")]
    answer = exchange(selector, "sel", *requests, "GET / HTTP/1.0\r\nHost: a.com\r\n\r\n")
    assert [body[-3:] for body in answer.split(b"HTTP/1.0 200 OK")[1:]] == [b"one", b"two", b"one"]


def test_setting_the_plugins_anew_empties_the_map(selector):
    assert "  VHOST a.com = one" in ask(selector, "dumpconfig")
    configured("SET sel.plugins = vhosts", selector)
    assert get(selector, "sel", "/", "Host: a.com")[0] == 404


def test_latency(selector):
    configured("SET sel.latency = 30", selector)
    begun = d.current_loop().clock()
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"one"
    assert d.current_loop().clock() - begun >= 0.03
    with d.connect(selector.services["sel"].listener.address) as sock:  # leaves before
        sock.write_all(b"GET / HTTP/1.0\r\nHost: a.com\r\n\r\n")
    assert get(selector, "sel", "/", "Host: a.com")[2] == b"one"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("vhost sel foo", "usage: VHOST [<service>] <host_or_pattern> = <dest_service>"),
        ("vhost one foo.com = two", "Service 'one' is not a selector service"),
        ("vhost none foo.com = two", "Service 'none' is not a selector service"),
        ("vhost sel f@oo = two", "invalid host pattern: 'f@oo'"),
        ("vhost foo.com = two", "omitted service name not implied from context"),
    ],
)
def test_vhost_errors(selector, line, error):
    assert ask(selector, line) == [f"ERROR: {error}"]


def test_no_selecting_plugin(selector):
    configured("UNLOAD vhosts", selector)
    assert get(selector, "sel")[::2] == (
        500,
        b"<h1>500 - Internal Server Error</h1>\nNo service selector configured.",
    )


def test_header_edits_of_a_selector(selector):
    seen = []
    selector.services["one"].register_hook("T", "start_web_request", lambda client: seen.append(client.head.get("x-a")))
    configured("HEADER sel INSERT X-A: b", selector)
    get(selector, "sel", "/", "Host: a.com")
    assert seen == ["b"]


def test_vpaths(tmp_path):
    text = "LOAD vpaths\n" + web(tmp_path)
    text += "\nCREATE SERVICE s\nSET role = selector\nSET listen = 127.0.0.1:0\nSET plugins = vpaths\n"
    text += "VPATH /index = ws\nVPATH s ^/gone = gone\nENABLE s"
    with serving(text) as world:
        assert get(world, "s", "/index.html")[2] == b"hello\n"
        assert get(world, "s", "/gone")[::2] == (
            404,
            b"<h1>404 - Not Found</h1>\nNot Found (gone not a defined service)",
        )
        assert get(world, "s", "/")[0] == 404
        configured("SET s.default_service = ws", world)
        assert get(world, "s", "/")[2] == b"hello\n"
        assert ask(world, "VPATH s ( = ws") == ["ERROR: invalid regular expression: '('"]
        assert ask(world, "VPATH ws x = ws") == ["ERROR: Service 'ws' is not a selector service"]
        assert "  VPATH /index = ws" in ask(world, "dumpconfig")


# -- answering


def test_redirect(tmp_path):
    text = "LOAD redirect\n" + web(tmp_path, "ws", "redirect", "REDIRECT HOST *.Example.com www.Example.net")
    with serving(text) as world:
        assert exchange(world, "ws", "GET /a?b=C HTTP/1.0\r\nHost: X.example.COM:81\r\n\r\n") == (
            b"HTTP/1.0 301 Permanent Redirect\r\nLocation: http://www.example.net/a?b=C\r\nContent-Length: 0\r\n"
            b"Server: Perlbal\r\nConnection: close\r\n\r\n"
        )
        assert get(world, "ws", "/", "Host: else.com")[2] == b"hello\n"
        assert "  REDIRECT HOST *.example.com www.example.net" in ask(world, "dumpconfig")
        assert ask(world, "REDIRECT HOST a b") == [
            "ERROR: No service name in context from CREATE SERVICE <name> or USE <service_name>"
        ]
        assert ask(world, "REDIRECT HOST a") == ["ERROR: usage: REDIRECT HOST <match_host> <target_host>"]
        assert ask(world, "REDIRECT HOST a b", context=context("ws")) == ["OK"]


def test_access_control(tmp_path):
    text = "LOAD AccessControl\n" + web(
        tmp_path, "ws", "AccessControl", "ACCESS policy deny", "ACCESS allow ip 127.0.0.9"
    )
    refused = (403, b"<h1>403 - Forbidden</h1>\nAccess denied.")
    with serving(text) as world:
        assert get(world, "ws")[::2] == refused
        configured("USE ws\nACCESS allow netmask 127.0.0.0/8\nACCESS deny ip 127.0.0.1", world)
        assert get(world, "ws")[0] == 200  # the first rule that matches
        assert [line for line in ask(world, "dumpconfig") if "ACCESS" in line] == [
            "  ACCESS ALLOW IP 127.0.0.9",
            "  ACCESS ALLOW NETMASK 127.0.0.0/8",
            "  ACCESS DENY IP 127.0.0.1",
            "  ACCESS POLICY DENY",
        ]
        configured("USE ws\nACCESS reset\nACCESS deny netmask 10.0.0.0/8\nSET ws.always_trusted = on", world)
        assert get(world, "ws", "/", "X-Forwarded-For: 10.1.1.1, 10.2.2.2")[0] == 200
        configured("SET ws.AccessControl.use_observed_ip = 1", world)
        assert get(world, "ws", "/", "X-Forwarded-For: 10.1.1.1")[::2] == refused
        assert get(world, "ws", "/", "X-Forwarded-For: no address")[0] == 200
        configured("USE ws\nACCESS reset\nACCESS queue_low ip 127.0.0.1", world)
        assert get(world, "ws")[0] == 200


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("access", "usage: ACCESS <cmd> <arg1> [<arg2>]"),
        ("access policy foo", "policy must be 'allow' or 'deny'"),
        ("access deny foo bar", "Unknown item to deny: 'foo'"),
        ("access queue_low", "Unknown item to queue_low: ''"),
        ("access deny netmask foo", "Error parsing netmask"),
        ("access deny netmask 10.0.0.0/99", "Error parsing netmask"),
    ],
)
def test_access_errors(line, error):
    world = configured("LOAD accesscontrol\nCREATE SERVICE s\nSET role = web_server")
    assert ask(world, line, context=context("s")) == [f"ERROR: {error}"]


def test_max_content_length(tmp_path):
    text = "LOAD MaxContentLength\n" + web(tmp_path, "ws", "MaxContentLength", "SET max_content_length = 3")
    with serving(text) as world:
        assert get(world, "ws", "/", "Content-Length: 4")[::2] == (
            413,
            b"<h1>413 - Content Too Large</h1>\nContent too long.\n",
        )
        assert get(world, "ws", "/", "Content-Length: 0")[0] == 200
        assert "  SET max_content_length = 3" in ask(world, "dumpconfig")
        configured("SET ws.max_content_length = 0", world)
        assert exchange(world, "ws", "GET / HTTP/1.0\r\nContent-Length: 4\r\n\r\nabcd").startswith(b"HTTP/1.0 200")


def test_not_modified(tmp_path):
    text = "LOAD NotModified\n" + web(tmp_path, "ws", "NotModified", "SET ws.notmodified.host_pattern = ^x")
    with serving(text) as world:
        line = "If-Modified-Since: whenever"
        assert get(world, "ws", "/", "Host: xx", line) == (304, {"Server": "Perlbal", "Connection": "close"}, b"")
        assert get(world, "ws", "/", "Host: ax", line)[0] == 200
        assert get(world, "ws", "/", "Host: xx")[0] == 200
        assert "  SET ws.notmodified.host_pattern = ^x" in ask(world, "dumpconfig")
        assert ask(world, "SET ws.notmodified.host_pattern = (") == ["ERROR: Invalid regular expression"]


def test_a_leading_directory_is_removed(tmp_path):
    text = "LOAD AutoRemoveLeadingDir\n" + web(tmp_path, "ws", "AutoRemoveLeadingDir")
    with serving(text) as world:
        assert get(world, "ws", f"/{tmp_path.name}/index.html")[2] == b"hello\n"
        assert get(world, "ws", "/index.html")[2] == b"hello\n"


def test_a_role_of_a_plugin():
    text = "LOAD echoservice\nCREATE SERVICE e\nSET role = echo\nSET listen = 127.0.0.1:0\nENABLE e"
    with serving(text) as world, d.connect(world.services["e"].listener.address) as sock:
        sock.write_all(b"one\ntwo\n")
        assert (sock.read_line(), sock.read_line()) == (b"one\n", b"two\n")


# -- configurations of several files


def test_include(tmp_path):
    (tmp_path / "a1.conf").write_text("CREATE SERVICE a1\nSET role = web_server\n")
    (tmp_path / "a2.conf").write_text("CREATE SERVICE a2\n")
    world = configured(f"LOAD include\nINCLUDE = {tmp_path}/a*.conf {tmp_path}/none*.conf")
    assert set(world.services) == {"a1", "a2"}
    assert ask(world, f"INCLUDE = {tmp_path}/none") == [
        f"ERROR: Error opening config file ({tmp_path}/none): No such file or directory"
    ]
    (answer,) = ask(world, f"INCLUDE = {tmp_path}/a1.conf")
    assert answer == f"ERROR: {tmp_path}/a1.conf:1: ERROR: service 'a1' already exists"
    assert ask(world, "INCLUDE") == ["ERROR: usage: INCLUDE = <config files>"]


# -- priorities, statistics


class Client:
    """As much of a client as these hooks look at."""

    def __init__(self, uri, host=""):
        self.head = self
        self.uri, self.host = uri, host


def test_high_priority():
    world = configured("LOAD highpri\nCREATE SERVICE s\nSET role = web_server\nSET plugins = highpri")
    service = world.services["s"]

    def is_high(uri, host=""):
        return service.run_hooks("make_high_priority", Client(uri, host))

    assert is_high("/login.bml")
    assert not is_high("/login.bml?x")
    configured("SET s.highpri.uri_pattern = ^/fast\nSET s.HighPri.host_pattern = Vip", world)
    assert is_high("/faster")
    assert is_high("/", "a.Vip")
    assert not is_high("/", "a.vip")
    assert ask(world, "patterns") == [
        "High priority pattern buffer:",
        "SET s.highpri.uri_pattern = ^/fast",
        "SET s.highpri.host_pattern = Vip",
        ".",
    ]
    configured("SET s.highpri.uri_pattern = none", world)
    assert not is_high("/fast")
    assert ask(world, "SET s.highpri.uri_pattern = (") == ["ERROR: Invalid regular expression"]


def test_stats(tmp_path):
    with serving("LOAD stats\n" + web(tmp_path, "ws", "stats")) as world:
        get(world, "ws")
        get(world, "ws", "/none")
        lines = ask(world, "stats")
        assert lines[:5] == [
            "ws              files_reproxied                      0",
            "ws              files_sent                           1",
            "ws              proxy_requests                       0",
            "ws              proxy_requests_highpri               0",
            "ws              web_requests                         2",
        ]
        assert lines[5:] == [line.replace("ws   ", "total", 1) for line in lines[:5]] + ["."]
        assert ask(world, "recent") == ["."]


# -- throttling


class Asker(Client):
    """A client with an address, which notes how it was answered."""

    def __init__(self, loop, address="1.2.3.4", uri="/", method="GET"):
        super().__init__(uri)
        self.loop, self.address, self.method = loop, address, method
        self.exchange, self.paused, self.answers = None, False, []

    def peer_ip_string(self):
        return self.address

    def get(self, name):
        return ""

    def error(self, code, text=""):
        self.answers.append((code, text))

    def close(self, reason):
        self.answers.append(reason)


@pytest.fixture
def throttled(loop):
    """A service with Throttle, on a virtual clock."""
    world = configured("LOAD throttle\nCREATE SERVICE s\nSET role = web_server\nSET plugins = throttle")
    service = world.services["s"]
    service.role.begin = lambda client, head: None if ask_once(service, client) else client.answers.append("passed")
    return world, service, loop


def ask_once(service, client):
    return service.run_hooks("start_proxy_request", client)


def leave(client):
    """The client leaves while it waits, if it does."""
    if client.exchange is not None:
        client.exchange.gone(client)


def end(service, client):
    service.run_all_hooks("end_proxy_request", client)


def test_a_first_request_passes_and_one_too_soon_is_delayed(throttled):
    _, service, loop = throttled
    first, second = Asker(loop), Asker(loop)
    assert not ask_once(service, first)
    end(service, first)
    assert ask_once(service, second)
    d.sleep(2.9)
    assert second.answers == []
    d.sleep(0.2)
    assert second.answers == ["passed"]
    end(service, second)
    d.sleep(61)
    assert not ask_once(service, Asker(loop))


def test_the_delay_doubles_up_to_the_limit(throttled):
    world, service, loop = throttled
    configured("SET s.max_delay = 10", world)
    assert not ask_once(service, Asker(loop))
    seen = []
    for _ in range(4):
        end_all(service)
        client = Asker(loop)
        begun = loop.clock()
        assert ask_once(service, client)
        while not client.answers:
            d.sleep(0.5)
        seen.append(round(loop.clock() - begun))
    assert seen == [3, 6, 10, 10]


def end_all(service):
    settings = service.world.plugins["throttle"].settings[service]
    for client in list(settings.counted):
        end(service, client)


def test_too_many_at_a_time(throttled):
    world, service, loop = throttled
    configured("SET s.default_action = allow", world)
    running = [Asker(loop) for _ in range(3)]
    assert [ask_once(service, client) for client in running] == [False, False, True]
    assert running[2].answers == [(403, "Forbidden.\n")]
    end(service, running[0])
    end(service, running[0])
    assert not ask_once(service, Asker(loop))
    assert ask_once(service, Asker(loop))
    assert not ask_once(service, Asker(loop, address="1.2.3.5"))


def test_a_client_that_leaves_while_it_waits_is_not_counted(throttled):
    _, service, loop = throttled
    ask_once(service, first := Asker(loop))
    end(service, first)
    for _ in range(5):
        client = Asker(loop)
        assert ask_once(service, client)
        assert client.answers == []
        client.exchange.gone(client)


def test_bans(throttled):
    world, service, loop = throttled
    configured("SET s.ban_threshold = 1\nSET s.ban_expiration = 100", world)
    for _ in range(2):
        client = Asker(loop)
        ask_once(service, client)
        end(service, client)
    assert client.answers == ["its address was banned"]
    client = Asker(loop)
    assert ask_once(service, client)
    assert client.answers == [(403, "Forbidden.\n")]
    d.sleep(101)
    assert not ask_once(service, Asker(loop))


def test_only_some_methods_and_paths(throttled):
    world, service, loop = throttled
    configured("SET s.path_regex = ^/slow\nSET s.method_regex = ^POST$\nUSE s\nTHROTTLE reload config", world)

    def waits(**options):
        ask_once(service, client := Asker(loop, **options))
        end(service, client)
        ask_once(service, client := Asker(loop, **options))
        end(service, client)
        delayed = client.exchange is not None
        leave(client)
        return delayed

    assert not waits(uri="/fast", method="POST")
    assert not waits(uri="/slow", method="GET")
    assert waits(uri="/slow", method="POST")
    assert ask(world, "SET s.path_regex = (", "USE s", "THROTTLE reload config")[-1] == (
        "ERROR: invalid regular expression: '('"
    )


def test_lists(throttled, tmp_path):
    world, service, loop = throttled
    (tmp_path / "white").write_text("# us\n10.0.0.0/8\n\n1.1.1.1 # and me\n")
    (tmp_path / "black").write_text("10.0.0.1\n6.6.6.0/24\n")
    configured(
        f"SET s.whitelist_file = {tmp_path}/white\nSET s.blacklist_file = {tmp_path}/black\nSET s.plugins = throttle",
        world,
    )

    def asked(address):
        ask_once(service, client := Asker(loop, address=address))
        end(service, client)
        return client.answers

    assert asked("10.0.0.1") == asked("10.0.0.1") == asked("1.1.1.1") == []
    assert asked("6.6.6.6") == [(403, "Forbidden.\n")]
    configured("SET s.log_only = on", world)
    assert asked("6.6.6.6") == []
    (tmp_path / "black").write_text("7.7.7.7\n")
    configured("SET s.log_only = off\nUSE s\nTHROTTLE reload blacklist\nTHROTTLE reload whitelist", world)
    assert asked("6.6.6.6") == []
    assert asked("7.7.7.7") == [(403, "Forbidden.\n")]
    (tmp_path / "black").write_text("nonsense\n")
    (answer,) = ask(world, "THROTTLE reload blacklist", context=context("s"))
    assert answer.startswith(f"ERROR: Couldn't load {tmp_path}/black: ")
    assert asked("7.7.7.7") == [(403, "Forbidden.\n")]


def test_throttle_errors(throttled):
    world, _, _ = throttled
    assert ask(world, "throttle x") == ["ERROR: usage: throttle reload <config|whitelist|blacklist>"]
    assert ask(world, "throttle reload config") == [
        "ERROR: No service name set. This command must be used after CREATE SERVICE <name> or USE <service_name>"
    ]
    assert ask(world, "throttle reload whitelist", context=context("s")) == ["ERROR: no whitelist file configured"]


def test_services_with_one_instance_name_share_what_they_know(throttled):
    world, service, loop = throttled
    configured("CREATE SERVICE t\nSET role = web_server\nSET plugins = throttle", world)
    configured("CREATE SERVICE u\nSET role = web_server\nSET instance_name = Other\nSET plugins = throttle", world)
    assert not ask_once(service, Asker(loop))
    client = Asker(loop)
    assert ask_once(world.services["t"], client)
    leave(client)
    assert not ask_once(world.services["u"], Asker(loop))


def test_a_plugin_goes_on_with_a_response(tmp_path):
    """After the file was sent; what it answers is the end, where it has not taken over."""
    with serving(web(tmp_path)) as world:
        service = world.services["ws"]

        def add(client):
            client.write(b"and more")

        service.register_hook("T", "reproxy_fh_finished", add)
        assert get(world, "ws")[2] == b"hello\nand more"

        def take_over(client):
            client.write(b"!")
            client.response_done()
            return True

        service.forget("T")
        service.register_hook("T", "reproxy_fh_finished", take_over)
        assert get(world, "ws")[2] == b"hello\n!"


# -- beside a backend


@pytest.fixture
def proxied():
    """A reverse proxy, and the requests that its backend has got."""
    requests = []

    def answer(sock):
        while True:
            requests.append(sock.read_until(b"\r\n\r\n").decode("latin-1"))
            sock.write_all(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")

    d.Socket.reset()
    backend = d.serve(("127.0.0.1", 0), answer)
    world = configured(
        f"""
        LOAD stats
        LOAD xffextras
        LOAD queues
        LOAD throttle
        LOAD highpri
        LOAD accesscontrol
        CREATE POOL a
        POOL a ADD 127.0.0.1:{backend.address[1]}
        CREATE SERVICE rp
        SET role = reverse_proxy
        SET listen = 127.0.0.1:0
        SET pool = a
        SET persist_backend = on
        ENABLE rp
        """
    )
    yield world, requests
    world.services["rp"].listener.close()
    configured("DISABLE rp", world)
    backend.close()
    d.Socket.reset()


def test_statistics_of_a_proxy(proxied):
    world, _ = proxied
    configured("SET rp.plugins = stats, highpri\nSET rp.highpri.uri_pattern = ^/fast", world)
    for path in "/", "/fast", "/":
        assert get(world, "rp", path, "Host: h")[2] == b"hi"
    lines = ask(world, "stats")
    assert lines[2:4] == [
        "rp              proxy_requests                       2",
        "rp              proxy_requests_highpri               1",
    ]
    recent = ask(world, "recent")
    assert [line.split(" ")[0::2] for line in recent[:-1]] == [
        ["rp", f"http://h{path}"] for path in ("/", "/fast", "/")
    ]
    assert all(0 <= float(line.split(" ")[1]) < 60 for line in recent[:-1])


def test_headers_for_backends(proxied):
    world, requests = proxied
    configured(
        "SET rp.plugins = xffextras queues\nSET rp.send_backend_port = on\nSET rp.send_backend_proto = on", world
    )
    get(world, "rp")
    port = world.services["rp"].listener.address[1]
    assert f"X-Forwarded-Port: {port}\r\nX-Forwarded-Proto: http\r\n" in requests[0]
    assert "X-Queue-Count: 0\r\nX-Queue-Age: 0\r\nX-HP-Queue-Count: 0\r\nX-HP-Queue-Age: 0\r\n" in requests[0]
    configured("SET rp.blind_proxy = on\nSET rp.always_trusted = on", world)
    get(world, "rp")
    assert "X-Forwarded-Port" not in requests[1]


def test_a_plugin_writes_before_the_body(proxied):
    world, _ = proxied
    world.services["rp"].register_hook("T", "prepend_body", lambda backend, client: client.write(b"oh "))
    assert get(world, "rp")[2] == b"oh hi"


def test_throttling_of_a_proxy(proxied):
    """Requests that are over are not counted, however they ended; one that waits is served when its time has come."""
    world, requests = proxied
    configured("SET rp.plugins = throttle\nSET rp.default_action = allow\nSET rp.max_concurrent = 1", world)
    for _ in range(3):
        assert get(world, "rp")[2] == b"hi"
    configured("USE rp\nSET rp.plugins = accesscontrol throttle\nACCESS policy deny", world)
    for _ in range(3):
        assert get(world, "rp")[0] == 403
        assert "Access denied." in get(world, "rp")[2].decode()
    configured("SET rp.plugins = throttle\nSET rp.default_action = throttle\nSET rp.initial_delay = 1", world)
    begun = d.current_loop().clock()
    assert [get(world, "rp")[2] for _ in range(2)] == [b"hi", b"hi"]
    assert d.current_loop().clock() - begun >= 1
    assert world.plugins["throttle"].settings[world.services["rp"]].counted == {}
    assert len(requests) == 5
