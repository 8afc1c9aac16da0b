"""Clients of others that are in use today get along with miniredis: those of Node.js and of Perl, where installed.

redis-py is in test_miniredis_*.py, in RESP2 and RESP3. Packages of Node.js are found as it finds them, by NODE_PATH.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from programs import SECONDS

NODE_REDIS = """
const { createClient, RESP_TYPES } = require('redis');
const assert = require('assert');
(async () => {
  for (const RESP of [2, 3]) {
    const url = `redis://default:any@127.0.0.1:${process.argv[1]}/0`;
    const client = await createClient({ url, RESP, name: 'judge' }).connect();
    const eq = async (call, expected) => assert.deepStrictEqual(await call, expected);
    await eq(client.ping(), 'PONG');
    await eq(client.flushAll(), 'OK');
    await eq(client.clientGetName(), 'judge');
    await eq(client.set('a', 'x', { expiration: { type: 'EX', value: 100 } }), 'OK');
    await eq(client.set('a', 'y', { GET: true }), 'x');
    await eq(client.mSet({ b: '1', c: '2' }), 'OK');
    await eq(client.mGet(['a', 'b', 'none']), ['y', '1', null]);
    await eq(client.setEx('d', 100, 'v'), 'OK');
    await eq(client.expire('d', 50, 'LT'), 1);
    await eq(client.incrBy('b', 5), 6);
    await eq(client.multi().incr('b').get('b').exec(), [7, '7']);
    await eq(client.watch('b'), 'OK');
    await eq(client.unwatch(), 'OK');
    const found = [];
    for await (const keys of client.scanIterator({ MATCH: '?', COUNT: 1 })) found.push(...[].concat(keys));
    assert.deepStrictEqual(found.sort(), ['a', 'b', 'c', 'd']);
    assert((await client.info('server')).includes('redis_version'));
    assert((await client.clientList()).some((one) => one.name === 'judge'));
    const subscriber = await client.duplicate().connect();
    const heard = new Promise((resolve) =>
      subscriber.subscribe('news', (message, channel) => resolve([channel, message])));
    while ((await client.pubSubNumSub('news')).news !== 1);
    await client.publish('news', 'hello');
    await eq(heard, ['news', 'hello']);
    await eq(client.pubSubChannels(), ['news']);
    await subscriber.unsubscribe('news');
    await assert.rejects(client.sendCommand(['NOSUCH']), /unknown command/);
    await subscriber.close();
    await client.close();
  }
  console.log('done');
})();
"""

IOREDIS = """
const { Redis } = require('ioredis');
const assert = require('assert');
(async () => {
  const redis = new Redis({ port: +process.argv[1], connectionName: 'judge', username: 'default', password: 'any' });
  const eq = async (call, expected) => assert.deepStrictEqual(await call, expected);
  await eq(redis.ping(), 'PONG');
  await eq(redis.flushall(), 'OK');
  await eq(redis.client('GETNAME'), 'judge');
  await eq(redis.set('a', 'x', 'EX', 100, 'NX'), 'OK');
  await eq(redis.set('a', 'y', 'GET'), 'x');
  await eq(redis.mset({ b: 1, c: 2 }), 'OK');
  await eq(redis.mget('a', 'b', 'none'), ['y', '1', null]);
  await eq(redis.pipeline().incr('b').setex('d', 100, 'v').exec(), [[null, 2], [null, 'OK']]);
  await redis.watch('b');
  await eq(redis.multi().incr('b').get('b').exec(), [[null, 3], [null, '3']]);
  await redis.watch('b');
  const other = redis.duplicate();
  await other.incr('b');
  await eq(redis.multi().incr('b').exec(), null);
  const found = [];
  for await (const keys of redis.scanStream({ match: '?', count: 1 })) found.push(...keys);
  assert.deepStrictEqual(found.sort(), ['a', 'b', 'c', 'd']);
  const heard = new Promise((resolve) => other.on('pmessage', (...words) => resolve(words)));
  await eq(other.psubscribe('n*'), 1);
  await eq(redis.publish('news', 'hello'), 1);
  await eq(heard, ['n*', 'news', 'hello']);
  await eq(redis.pubsub('NUMPAT'), 1);
  await eq(other.punsubscribe(), 0);
  await eq(other.get('a'), 'y');
  const monitor = await redis.monitor();
  const shown = new Promise((resolve) => monitor.on('monitor', (time, words) => resolve(words)));
  await redis.get('a');
  await eq(shown, ['get', 'a']);
  monitor.disconnect();
  await assert.rejects(redis.call('NOSUCH'), /unknown command/);
  await other.quit();
  await redis.quit();
  console.log('done');
})();
"""

PERL = r"""
use strict; use warnings; use Redis;
my $port = shift;
sub eq_ {
    my ($got, $expected) = @_;
    die "$got is not $expected at line " . (caller)[2] . "\n" unless $got eq $expected;
}
my $redis = Redis->new(server => "127.0.0.1:$port", name => 'judge');
eq_($redis->ping, 'PONG');
eq_($redis->flushall, 'OK');
eq_($redis->client_getname, 'judge');
eq_($redis->set(a => 'x', EX => 100), 'OK');
eq_($redis->mset(b => 1, c => 2), 'OK');
eq_(join(',', map { $_ // 'undef' } $redis->mget('a', 'b', 'none')), 'x,1,undef');
eq_($redis->incr('b'), 2);
eq_($redis->setex('d', 100, 'v'), 'OK');
eq_(join(',', sort $redis->keys('?')), 'a,b,c,d');
my ($cursor, @found) = (0);
do { ($cursor, my $keys) = $redis->scan($cursor, MATCH => '?', COUNT => 1); push @found, @$keys } while $cursor;
eq_(join(',', sort @found), 'a,b,c,d');
$redis->watch('b'); $redis->multi; $redis->incr('b'); $redis->get('b');
eq_(join(',', $redis->exec), '3,3');
eq_($redis->info->{loading}, 0);
my $other = Redis->new(server => "127.0.0.1:$port");
my @heard;
my $hear = sub { @heard = @_[0, 1] };
$other->subscribe('news', $hear);
eq_($redis->publish('news', 'hello'), 1);
$other->wait_for_messages(1) until @heard;
eq_("@heard", 'hello news');
$other->unsubscribe('news', $hear);
eq_($other->get('a'), 'x');
my @replies;
$redis->incr('b', sub { push @replies, $_[0] }) for 1 .. 100;
$redis->wait_all_responses;
eq_("@replies[0, 99]", '4 103');
eval { $redis->nosuch }; die "no error\n" unless $@ =~ /unknown command/;
$redis->quit; $other->quit;
print "done\n";
"""


@pytest.fixture
def port(start: Any) -> int:
    ports: list[int] = start("miniredis", "--port", "0", "--status-port", "0", lines=2)
    return ports[0]


def judge(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * SECONDS)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def needs(program: str, *check: str, what: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if subprocess.run([program, *check], capture_output=True, timeout=3 * SECONDS).returncode:
        pytest.skip(f"{program} does not find {what}")


@pytest.mark.parametrize(("package", "script"), [("redis", NODE_REDIS), ("ioredis", IOREDIS)], ids=["redis", "ioredis"])
def test_node(request: pytest.FixtureRequest, package: str, script: str) -> None:
    needs("node", "-e", f"require('{package}')", what=f"its package {package} (npm install, NODE_PATH)")
    judge(["node", "-e", script, str(request.getfixturevalue("port"))])


def test_perl(request: pytest.FixtureRequest) -> None:
    needs("perl", "-MRedis", "-e", "1", what="its module Redis (Debian: libredis-perl)")
    judge(["perl", "-e", PERL, str(request.getfixturevalue("port"))])
