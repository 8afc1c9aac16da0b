"""A crawler: it follows the links of a site, so many pages at a time, and shows how far it has come.

    python examples/crawler --limit 20 --seconds 30 http://127.0.0.1:8000/

It is a client, in sequential style throughout: each page is fetched by a task that reads as if it blocked.

- `TaskGroup(limit=...)` bounds how many pages are fetched at once. The tasks add to the group they are in: every link
  that was not seen yet is one more `group.spawn`, and the block ends when no page is left.
- A `timeout` around each page is for all of it: connecting, the headers, a body that drips. `move_on_after` around the
  whole crawl ends it quietly, with what there is.
- The progress is a task of its own, which wakes at absolute times (`sleep_until`), so that it does not drift. It is not
  in the group, which would wait for it.
- Servers lie. Sizes are bounded before they are believed: of a line, of the headers, of a body, of a chunk.
- A large page is parsed in pieces (`links`), and others have their turn between them (`sleep(0)`).
- Ctrl-C ends the group, which ends its tasks, and the summary is printed all the same.

The modules, each of which imports only from those above it:

    links       where a page leads, as a browser understands it
    fetching    one page, by HTTP
    crawl       many pages
    program     the command line, and the summary
"""
