"""What machines ask for besides the API: the metrics, and whether the engine is ready."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from orchestrator import health, metrics
from orchestrator.api.answers import to_json
from orchestrator.api.token import ADMIN
from orchestrator.errors import Forbidden


@require_safe
def show_metrics(request: HttpRequest) -> HttpResponse:
    """Answer all metrics as Prometheus reads them; asks for the admin token if one is configured."""
    ADMIN(request)
    return HttpResponse(metrics.exposition(), content_type=metrics.CONTENT_TYPE)


@require_safe
def show_readiness(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the stores answer and every queue is served, else 503; the parts to the staff's token only."""
    found = health.check_readiness()
    body = found.summary
    try:
        ADMIN(request)
    except Forbidden:
        pass
    else:
        body |= {"checks": found.checks, "took_ms": round(found.took_ms, 1)}
    return HttpResponse(to_json(body), status=200 if found.ok else 503, content_type="application/json")
