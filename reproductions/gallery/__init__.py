"""`python -m reproductions.gallery`: one HTML page of the originals and the reproductions.

The page shows the reference results in `artifacts/reference/<module>/` and runs of one's own, and
needs nothing but itself: pictures are embedded, and its Content-Security-Policy forbids it to
fetch. TensorFlow is not needed to make it.

`content.collect` reads folders and returns plain data, `page.render` makes a page of it. What comes
out of a run's folder is not trusted: text is escaped, pictures are decoded and encoded again.
"""
