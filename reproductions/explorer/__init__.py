"""The explorer: one page in which what the six models learned can be tried out, live.

`models` are the networks in NumPy, `measure` finds what the page tells of them, `build` puts the
page together from `page.html`, `style.css`, the JavaScript and the texts beside it.
"""
