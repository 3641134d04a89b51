"""The management API: what all its endpoints share, and the endpoints that belong to no house (API.md).

`middleware` answers every request for it, `app` is the django-ninja object, `strict` reads parameters and
bodies. The houses bring their routers: `actors.api`, `runners.api`.
"""
