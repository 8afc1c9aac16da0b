"""SQLAlchemy's asyncio engine and sessions from tasks, against PostgreSQL. In coroutines it has its own greenlets."""

from __future__ import annotations

import itertools

import pytest

import dangagreen as d
from dangagreen.bridge import await_, to_task
from tests.bridge.libraries.company import made, result, results
from tests.programs import needed

needed("asyncpg")
sqlalchemy = needed("sqlalchemy")
orm = needed("sqlalchemy.orm")
aio = needed("sqlalchemy.ext.asyncio")
pytestmark = pytest.mark.slow
names = map("library_{}".format, itertools.count())


class Base(aio.AsyncAttrs, orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id = orm.mapped_column(sqlalchemy.Integer, primary_key=True)
    name = orm.mapped_column(sqlalchemy.String)
    books = orm.relationship("Book", back_populates="author")


class Book(Base):
    __tablename__ = "book"
    id = orm.mapped_column(sqlalchemy.Integer, primary_key=True)
    title = orm.mapped_column(sqlalchemy.String)
    author_id = orm.mapped_column(sqlalchemy.ForeignKey("author.id"))
    author = orm.relationship("Author", back_populates="books")


@pytest.fixture
def in_engine(in_company, database_url):
    """`in_engine(function)` calls it with a Company and an engine of up to two connections, which are free at the end.

    The tables are in a schema of their own.
    """

    def in_engine(function):
        def body(company):
            url, schema = database_url.replace("postgresql", "postgresql+asyncpg"), next(names)
            pool = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 20}
            settings = {"connect_args": {"server_settings": {"search_path": schema}}}
            engine = await_(made(aio.create_async_engine, url, **pool, **settings))
            try:
                await_(prepared(engine, schema))
                answer = function(company, engine)
                company.until(lambda: engine.pool.checkedout() == 0)
                return answer
            finally:
                await_(execute(engine, f"drop schema {schema} cascade"))
                await_(engine.dispose())

        return in_company(body)

    return in_engine


async def prepared(engine, schema):
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.text(f"create schema {schema}"))
        await connection.run_sync(Base.metadata.create_all)


async def execute(engine, statement):
    async with engine.begin() as connection:
        found = await connection.execute(sqlalchemy.text(statement))
        return found.scalar() if found.returns_rows else None


def test_many_tasks_share_an_engine(in_engine):
    def body(_company, engine):
        return results([d.spawn(await_, execute(engine, f"select {n} * 2")) for n in range(20)])

    assert in_engine(body) == [2 * n for n in range(20)]


def test_a_statement_waits_alone(in_engine):
    def body(company, engine):
        holder = await_(made(engine.connect))
        await_(holder.start())
        await_(holder.execute(sqlalchemy.text("select pg_advisory_lock(2)")))
        waiting = company.waits(execute(engine, "select pg_advisory_xact_lock(2)::text || 'mine'"))
        await_(holder.execute(sqlalchemy.text("select pg_advisory_unlock(2)")))
        assert result(waiting) == "mine"
        await_(holder.close())

    in_engine(body)


def test_objects_are_loaded_when_they_are_needed(in_engine):
    """The lazy loading of SQLAlchemy waits in a greenlet of its own."""

    async def write(sessions):
        async with sessions.begin() as session:
            session.add(Author(name="Ann", books=[Book(title=title) for title in "abc"]))

    async def read(sessions):
        async with sessions() as session:
            author = (await session.scalars(sqlalchemy.select(Author))).one()
            return author.name, sorted(book.title for book in await author.awaitable_attrs.books)

    def body(_company, engine):
        sessions = aio.async_sessionmaker(engine)
        await_(write(sessions))
        return results([d.spawn(await_, read(sessions)) for _ in range(6)])

    assert in_engine(body) == [("Ann", ["a", "b", "c"])] * 6


def test_a_task_uses_a_session_step_by_step(in_engine):
    def work(sessions, n):
        session = await_(made(sessions))
        try:
            author = Author(name=f"author {n}")
            session.add(author)
            await_(session.flush())
            d.sleep(0.001)
            session.add(Book(title=f"book {n}", author=author))
            await_(session.commit())
        finally:
            await_(session.close())

    async def titles(sessions):
        async with sessions() as session:
            query = sqlalchemy.select(Author.name, Book.title).join(Author.books)
            return {tuple(row) async for row in await session.stream(query)}

    def body(_company, engine):
        sessions = aio.async_sessionmaker(engine)
        results([d.spawn(work, sessions, n) for n in range(6)])
        return await_(titles(sessions))

    assert in_engine(body) == {(f"author {n}", f"book {n}") for n in range(6)}


def test_a_session_that_is_cut_off_is_rolled_back(in_engine):
    async def slow(sessions):
        async with sessions.begin() as session:
            session.add(Author(name="nobody"))
            await session.flush()
            await session.execute(sqlalchemy.text("select pg_sleep(3600)"))

    def sleeps(engine):
        query = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query = 'select pg_sleep(3600)'"
        return await_(execute(engine, query)) == 1

    def body(company, engine):
        sessions = aio.async_sessionmaker(engine)
        for _ in range(3):
            company.cut_off(slow(sessions), lambda: sleeps(engine))
        company.until(lambda: engine.pool.checkedout() == 0)
        assert await_(execute(engine, "select count(*) from author")) == 0

    in_engine(body)


def test_what_may_park_is_refused_in_a_greenlet_of_sqlalchemy(in_engine):
    """To park there would resume the wrong greenlet. A task that the coroutine awaits is no such greenlet."""

    async def parks(engine):
        async with engine.connect() as connection:
            with pytest.raises(d.CannotParkError):
                await connection.run_sync(lambda _: d.sleep(0.001))
            with pytest.raises(d.CannotParkError):
                await connection.run_sync(lambda _: await_(execute(engine, "select 1")))
            await to_task(d.sleep, 0.001)
            return (await connection.execute(sqlalchemy.text("select 3"))).scalar()

    assert in_engine(lambda _company, engine: await_(parks(engine))) == 3


def test_who_waits_for_a_connection_leaves_the_queue_when_it_is_cut_off(in_engine):
    async def hold(engine, event):
        async with engine.connect():
            await to_task(event.wait)

    def body(company, engine):
        event = d.Event()
        holders = [company.waits(hold(engine, event)) for _ in range(2)]
        company.cut_off(execute(engine, "select 1"))
        waiting = company.waits(execute(engine, "select 4"))
        event.set()
        results(holders)
        return result(waiting)

    assert in_engine(body) == 4
