"""Django settings, and the only reader of the environment.

`ENV` holds every variable the engine understands, checked once at boot: a wrong value stops the boot and
names the variable. Lengths of time are bare numbers with their unit in the name.
"""

import secrets
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator import embedded
from orchestrator.addresses import is_loopback

BASE_DIR = Path(__file__).resolve().parent.parent


class Environment(BaseSettings):
    """The environment variables of the engine, typed. `DATABASE_URL` and `REDIS_URL` have no prefix."""

    model_config = SettingsConfigDict(env_prefix="TORPOR_", extra="ignore", frozen=True)
    # `django.conf.settings` looks for this on whatever it returns; not finding it in a model takes 10 µs.
    _mask_wrapped: ClassVar[bool] = True

    state: Path = Path(".torpor")  # where the embedded stores keep everything
    database_url: str = Field(default="", validation_alias="DATABASE_URL")
    redis_url: str = Field(default="", validation_alias="REDIS_URL")
    secret_key: str = ""
    debug: bool = False
    allowed_hosts: str = "*"  # comma-separated
    public_url: str = "http://127.0.0.1:6420"  # how runners and clients reach this engine
    host: str = "127.0.0.1"  # where the web processes listen, unless told on their command line
    valid_hosts: str = ""  # comma-separated: where runners may connect, with or without port; empty: anywhere
    admin_token: str = ""
    auth: Literal["", "required"] = ""  # required: a token is asked for even if there is no admin's
    tracing: bool = False  # spans of requests to actors, for OpenTelemetry
    metrics: Path | None = None  # where the processes of one machine count; default: in the state directory
    log_format: Literal["line", "json"] = "line"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"

    shards: int = Field(default=16, ge=1, le=4096)
    batch_signals: int = Field(default=16, ge=1, le=4096)  # signals one turn of the pump takes
    lock_lease_ms: int = Field(default=2_000, ge=100)
    sweep_interval_ms: int = Field(default=1_000, ge=50)
    # How long what is over is kept; 0: for ever.
    timeline_days: float = Field(default=7, ge=0)  # arrows
    start_requests_days: float = Field(default=7, ge=0)  # ended `/start` requests
    runners_days: float = Field(default=7, ge=0)  # runners that have stopped
    audit_days: float = Field(default=365, ge=0)  # what was done by hand

    runner_ping_interval_ms: int = Field(default=3_000, ge=50)
    runner_ping_timeout_ms: int = Field(default=15_000, ge=100)
    runner_eligible_ms: int = Field(default=10_000, ge=100)  # silent for longer: nothing new is allocated to it
    runner_lost_ms: int = Field(default=15_000, ge=100)  # silent for longer: its actors are lost
    runner_init_timeout_ms: int = Field(default=5_000, ge=100)
    normal_drain_grace_ms: int = Field(default=30_000, ge=0)
    evict_handshake_ms: int = Field(default=1_000, ge=0)

    actor_start_ms: int = Field(default=30_000, ge=100)
    actor_stop_ms: int = Field(default=1_800_000, ge=100)
    actor_pending_ms: int = Field(default=60_000, ge=100)  # longest wait for a slot after a wake or a restart

    actor_storage_bytes: int = Field(default=10 * 1024**3, ge=0)  # quota of one actor's key-value storage
    storage_threads: int = Field(default=4, ge=1, le=64)  # storage calls at a time in one web process

    websocket_ping_ms: int = Field(default=30_000, ge=0)  # so often each WebSocket is pinged; 0: never
    websocket_pong_ms: int = Field(default=20_000, ge=100)  # a client may take so long to answer

    gateway_ready_ms: int = Field(default=30_000, ge=100)
    gateway_request_ms: int = Field(default=60_000, ge=100)
    gateway_proof_ms: int = Field(
        default=5_000, ge=0
    )  # to answer, for a returned runner that may have lost a request
    gateway_response_start_ms: int = Field(default=300_000, ge=100)
    gateway_repeat_wake_ms: int = Field(default=1_400, ge=50)
    gateway_rewakes: int = Field(default=8, ge=0)
    gateway_retry_pause_ms: int = Field(default=150, ge=0)  # before the second attempt; doubles with each
    gateway_socket_open_ms: int = Field(default=15_000, ge=100)  # an actor has so long to accept a WebSocket
    gateway_socket_unacked_ms: int = Field(default=30_000, ge=100)  # and to acknowledge a message of one
    gateway_socket_unacked_bytes: int = Field(default=128 * 1024 * 1024, ge=0)  # kept of one until then
    gateway_lease_ms: int = Field(default=15_000, ge=300)  # a gateway silent for longer has lost its WebSockets
    gateway_body_bytes: int = Field(default=20 * 1024 * 1024, ge=0)
    gateway_headers: int = Field(default=100, ge=1)  # of one request
    gateway_header_bytes: int = Field(default=16 * 1024, ge=1)  # one header, name and value
    # The following hold for each web process; 0 is no limit.
    gateway_actor_requests: int = Field(default=1_000, ge=0)  # of one actor, at a time
    gateway_actor_sockets: int = Field(default=1_000, ge=0)
    gateway_ip_requests: int = Field(default=0, ge=0)  # of one client address, per window
    gateway_ip_window_ms: int = Field(default=60_000, ge=100)
    gateway_ip_in_flight: int = Field(default=0, ge=0)  # of one client address, at a time
    trusted_proxies: str = ""  # comma-separated addresses or networks whose X-Forwarded-For is believed

    serverless_streams: int = Field(default=2_000, ge=1)  # held by one connector process at the most
    serverless_private: bool | None = (
        None  # may endpoints have private addresses; unset: `private_endpoints_allowed`
    )
    serverless_ready_ms: int = Field(default=120_000, ge=500)  # a `/start` without a runner for longer has failed
    serverless_claim_ms: int = Field(default=5_000, ge=500)  # a connector silent for longer loses its streams

    @property
    def auth_required(self) -> bool:
        """Whether a token is asked for: from everybody, or from nobody."""
        return bool(self.admin_token) or self.auth == "required"

    def exposure(self, host: str) -> str | None:
        """Return why the engine must not listen there, None if it may: without a token it stays on loopback."""
        if self.auth_required or is_loopback(host):
            return None
        where = host or "every address"
        return f"without a token the engine listens on loopback only: set TORPOR_ADMIN_TOKEN to listen on {where}"

    @property
    def private_endpoints_allowed(self) -> bool:
        """Whether endpoints may be on this machine or in a private network (DESIGN §11).

        Unless said, only an engine that is itself reached from this machine alone may call them.
        """
        if self.serverless_private is not None:
            return self.serverless_private
        return is_loopback(self.host) and is_loopback(urlsplit(self.public_url).hostname or "")

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for part in filter(None, map(str.strip, value.split(","))):
            ip_network(part, strict=False)
        return value

    @field_validator("public_url")
    @classmethod
    def _absolute_without_trailing_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must be an absolute http or https URL")
        return value.rstrip("/")


def _read_environment() -> Environment:
    try:
        return Environment()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            variable = name if name.isupper() else f"TORPOR_{name.upper()}"
            secret = variable.endswith(("_URL", "_KEY", "_TOKEN"))
            shown = variable if secret else f"{variable}={problem['input']!r}"
            lines.append(f"{shown}: {problem['msg']}")
        raise ImproperlyConfigured("\n".join(lines)) from None


ENV = _read_environment()
STATE_DIR = ENV.state.resolve()
METRICS_DIR = (ENV.metrics or STATE_DIR / "metrics").resolve()
REDIS_URL = ENV.redis_url or embedded.redis_url(STATE_DIR)


def _database() -> dict[str, Any]:
    url = ENV.database_url or f"sqlite:///{quote(str(STATE_DIR / 'torpor.sqlite3'))}"
    try:
        config: dict[str, Any] = dict(dj_database_url.parse(url))
    except ValueError as error:
        raise ImproperlyConfigured(f"DATABASE_URL: {error}") from None
    if config["ENGINE"] == "django.db.backends.sqlite3":
        config["ENGINE"] = "orchestrator.sqlite"
    elif config["ENGINE"] == "django.db.backends.postgresql":
        config["ENGINE"] = "orchestrator.postgres"
    else:
        raise ImproperlyConfigured(f"DATABASE_URL: only sqlite and postgresql, not {config['ENGINE']}")
    return config | {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}


def _secret_key() -> str:
    """Return the configured key, else the one `up` stored, else one for this process alone."""
    stored = STATE_DIR / "secret_key"
    if ENV.secret_key:
        return ENV.secret_key
    return stored.read_text().strip() if stored.exists() else secrets.token_urlsafe(50)


DATABASES = {"default": _database()}
SECRET_KEY = _secret_key()
SECRET_KEY_LASTS = bool(ENV.secret_key) or (STATE_DIR / "secret_key").exists()
"""Whether other processes have the same key, which runners' tickets are signed with."""
NO_SECRET_KEY = "TORPOR_SECRET_KEY: must be set, the same for all processes, where a token is asked for"
DEBUG = ENV.debug
ALLOWED_HOSTS = [host.strip() for host in ENV.allowed_hosts.split(",") if host.strip()]
ROOT_URLCONF = "orchestrator.urls"
ASGI_APPLICATION = "orchestrator.asgi.application"
BACKGROUND_APPLICATION = "runners.serverless.background"  # what `runworker` runs
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = "orchestrator.formats"
STATIC_URL = "/static/"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ENV.public_url.startswith("https://")
CSRF_TRUSTED_ORIGINS = [ENV.public_url] if ENV.public_url.startswith("https://") else []
DATA_UPLOAD_MAX_NUMBER_FIELDS = None  # a list may be asked for by as many ids as a URL can hold

INSTALLED_APPS = [
    "orchestrator",
    "runners",
    "actors",
    "gateway",
    "console",
    "channels",
    "ninja",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "orchestrator.api.middleware.ApiMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "orchestrator.channel_layer.PatientLayer",
        # The layer waits five seconds for a message in one call, which is also redis-py's time-out for any.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 20}], "prefix": "torpor-channels"},
    }
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        "json": {"()": "orchestrator.logs.JsonFormatter"},
    },
    "filters": {"ray": {"()": "orchestrator.logs.RayFilter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": ENV.log_format, "filters": ["ray"]}},
    "root": {"handlers": ["stderr"], "level": ENV.log_level},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},  # a refused request is no event of ours
        "httpx": {"level": "WARNING"},  # it writes whole URLs
        "httpcore": {"level": "WARNING"},  # and headers
        "websockets": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},  # a line for each task; there are many
        "celery.app.trace": {"level": "WARNING"},  # another one
    },
}
