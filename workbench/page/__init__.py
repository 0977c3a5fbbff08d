"""The page at ``/``: what a database holds, as it is now, to be looked at beside a notebook."""

# The files that it consists of, beside the page itself.
ASSETS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.svg": "image/svg+xml",
}
# What page.js sends when it looks again by itself.
AGAIN = "X-Workbench-Again"
