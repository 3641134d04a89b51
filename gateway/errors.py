"""What can keep a client from its actor (PROTOCOL §8.6)."""

from orchestrator.errors import OrchestratorError


class GatewayError(OrchestratorError):
    """The gateway could not get an answer."""

    group = "guard"


class NoRoute(GatewayError):
    """No route leads from this host and path."""

    code, status = "no_route", 404


class MissingHeader(GatewayError):
    """A header that the route needs is missing."""

    code, status = "missing_header", 400


class InvalidHeader(GatewayError):
    """A header has a value that means nothing."""

    code, status = "invalid_header", 400


class HeadersTooLarge(GatewayError):
    """The request has too many headers, or one that is too long."""

    code, status = "request_headers_too_large", 431


class RateLimited(GatewayError):
    """This address has too many requests, under way or in the last while."""

    code, status = "rate_limit", 429


class ActorBusy(GatewayError):
    """The actor has as many requests or WebSockets as it may."""

    code, status = "actor_busy", 429


class QueryError(GatewayError):
    """The parameters that say which actor is meant cannot be used."""

    status = 400


class QueryInvalidParams(QueryError):
    """A parameter that says which actor is meant is missing, unknown or wrong."""

    code = "query_invalid_params"


class QueryDuplicateParam(QueryError):
    """A parameter that says which actor is meant comes twice."""

    code = "query_duplicate_param"


class QueryInvalidPercentEncoding(QueryError):
    """A part of what says which actor is meant is not percent-encoded UTF-8."""

    code = "query_invalid_percent_encoding"


class QueryInvalidBase64Input(QueryError):
    """The actor's input is not base64url without padding."""

    code = "query_invalid_base64_input"


class QueryInvalidCborInput(QueryError):
    """The actor's input is not CBOR."""

    code = "query_invalid_cbor_input"


class QueryPathTokenSyntax(QueryError):
    """Beside a query a token is given as `rvt-token`, not in the path."""

    code = "query_path_token_syntax"


class QueryGetDisallowedParams(QueryError):
    """The method get makes no actor and takes nothing that one would be made of."""

    code = "query_get_disallowed_params"


class QueryMissingPool(QueryError):
    """The method getOrCreate needs a pool."""

    code = "query_missing_pool"


class QueryEmptyActorName(QueryError):
    """The name of the actor is empty."""

    code = "query_empty_actor_name"


class ActorNotFound(GatewayError):
    """The actor does not exist."""

    group, code, status = "actor", "not_found", 404


class ActorDestroyedWhileWaiting(GatewayError):
    """The actor was destroyed while the request waited for it."""

    group, code, status = "actor", "destroyed_while_waiting_for_ready", 400


class ActorReadyTimeout(GatewayError):
    """The actor did not become ready in time."""

    code, status = "actor_ready_timeout", 503


class ActorWakeRetriesExceeded(GatewayError):
    """The actor stopped again and again before it was ready."""

    code, status = "actor_wake_retries_exceeded", 400


class ActorRunnerFailed(GatewayError):
    """The actor's pool cannot start runners."""

    code, status = "actor_runner_failed", 503


class ActorStopped(GatewayError):
    """The actor stopped before it answered."""

    code, status = "actor_stopped_while_waiting", 503


class TunnelRequestAborted(GatewayError):
    """The runner gave the request up before it answered."""

    code, status = "tunnel_request_aborted", 503


class TunnelBroken(GatewayError):
    """The way to the runner broke; whether the request, or an answer to it, came through is not known."""

    code, status = "tunnel_response_closed", 503


class ResponseStartTimeout(GatewayError):
    """The actor did not answer in time."""

    code, status = "gateway_response_start_timeout", 504


class RequestBodyTooLarge(GatewayError):
    """The request's body is too large."""

    code, status = "invalid_request_body", 413


class RetryAttemptsExceeded(GatewayError):
    """Every attempt failed."""

    code, status = "retry_attempts_exceeded", 502


class TunnelOverloaded(GatewayError):
    """The runner does not keep up with what it is sent."""

    code, status = "service_unavailable", 503


class InvalidResponse(OrchestratorError):
    """The actor's answer cannot be passed on."""


class SocketRefused(TunnelRequestAborted):
    """The actor refused the WebSocket."""

    code = "websocket_closed_before_open"


class SocketOpenTimeout(TunnelRequestAborted):
    """The actor did not accept the WebSocket in time."""

    code = "websocket_open_timeout"


class SocketUnheard(TunnelRequestAborted):
    """The WebSocket's open, or the actor's answer to it, may have been lost."""

    code = "websocket_open_dropped"


class SocketPendingLimit(GatewayError):
    """The actor leaves too many of the client's messages unacknowledged."""

    code, status = "websocket_pending_limit_reached", 503


class SocketUnacknowledged(GatewayError):
    """The actor has left a message of the client unacknowledged for too long."""

    code, status = "websocket_garbage_collected", 503


class SocketOverloaded(GatewayError):
    """The client reads more slowly than the actor writes."""

    code, status = "websocket_client_too_slow", 503


class SocketTunnelLost(GatewayError):
    """Messages between the gateway and the runner may have been lost."""

    code, status = "websocket_tunnel_lost", 503


class SocketTunnelTimeout(GatewayError):
    """The way to the runner has been closed for too long."""

    code, status = "websocket_tunnel_ping_timeout", 503


class SocketNotKept(GatewayError):
    """The gateway could not vouch for the hibernating WebSocket all the time, so the actor may not know it."""

    code, status = "websocket_not_kept", 503


class SocketMessageTooLarge(GatewayError):
    """The message is longer than the tunnel takes."""

    code, status, close_code = "websocket_message_too_large", 413, 1009


class SocketGoingAway(GatewayError):
    """This gateway process ends; connect again."""

    group, code, status, close_code = "ws", "going_away", 503, 1012
