"""A page with a component alone on a loopback port, and how it is looked at."""

import contextlib
import time

import numpy as np

PATIENCE = 30


@contextlib.contextmanager
def serving(build):
    """The address of a page that `build()` fills, as long as the context is open."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as page:
        build()
    _, url, _ = page.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=None
    )
    try:
        yield url
    finally:
        page.close(verbose=False)


@contextlib.contextmanager
def opened_page(browser, url, *, theme="light", **options):
    """A page in a context of its own; no console error and no outside request is let pass."""
    context = browser.new_context(**({"viewport": {"width": 1200, "height": 1000}} | options))
    context.set_default_timeout(40_000)
    page, troubles = context.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if _is_own(r.url) else troubles.append(f"asked {r.url}"))
    page.goto(f"{url}?__theme={theme}")
    try:
        yield page
        assert troubles == []
    finally:
        context.close()


def _is_own(url):
    return url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:"))


def eventually(check, seconds=PATIENCE):
    """What `check()` gives as soon as it neither fails an assertion nor is False: pages take time.

    Past the deadline its failure is the test's.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            found = check()
        except AssertionError:
            if time.monotonic() > end:
                raise
        else:
            found = bool(found) if isinstance(found, np.bool_) else found  # np.False_ is not False
            if found is not False or time.monotonic() > end:
                assert found is not False, f"not so within {seconds} s"
                return found
        time.sleep(0.05)
