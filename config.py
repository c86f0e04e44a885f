"""Every setting: its name, unit, default and why. The only place that reads the environment and `.env`.

A value comes from the environment, else from `.env` in the working directory, else from the default here. Names and
defaults are the same here, in `.env.example` and in both halves of the README; here they stand by the modules that use
them, there in the order in which a person sets them.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# Models that Google has certainly shut down, and what it names as successor; where it names none, the current model of that
# tier. About all others Google's own 404 decides (banana/google/models.py).
RETIRED_MODELS = (
    "gemini-3-pro-image-preview=gemini-3-pro-image,"
    "gemini-3.1-flash-image-preview=gemini-3.1-flash-image,"
    "gemini-2.5-flash-image-preview=gemini-nano-banana-2.1,"
)
# Names that programs send by default which were written for OpenAI's models, and for Imagen; each becomes the model of
# that price.
OTHER_MODELS = (
    "gpt-image-*=gemini-3-pro-image,gpt-image-*-mini=gemini-nano-banana-2.1,chatgpt-image-*=gemini-3-pro-image,"
    "dall-e-*=gemini-3-pro-image,dall-e-2=gemini-nano-banana-2.1,imagen-*=gemini-nano-banana-2.1"
)
# What to do without a key, as it is said where there are no scripts.
WITHOUT_A_KEY = "set DEMO=true"
# What the parent of the workers keeps for its life; everything else a new worker reads anew.
FIXED_AT_START = (
    *("host", "port", "workers", "request_timeout_seconds", "max_connections", "max_requests", "idle_seconds"),
    "demo",
)
STATE_FOLDER = Path(".state")
RESULTS_FOLDER = ".state/results"
# The folder, below that of everything else, in which the demo keeps what it has: nothing of it is found when a real key is set,
# no result, no key, no cent.
DEMO = "demo"
# More than anybody spends; and an amount of nanodollars that SQLite can hold.
MAX_USD = 1_000_000
# One image of 4K, as Google makes it; less would be paid for and not be kept.
LEAST_KEPT_BYTES = 32 << 20
# Written wrong in the environment they stop the start, where other names are warned about: without them the service would be
# open, spend without limit, or keep its records in another place.
GUARDS = (
    *(
        "ACCESS_TOKENS",
        "METRICS_TOKEN",
        "BUDGETS",
        "KEY_SPEND_PER_10_MINUTES",
        "STORE_URL",
        "LEDGER_URL",
        "RESULTS_URL",
    ),
    *("RESULTS_SECRET", "UPSTREAM_PROXY", "GEMINI_BASE_URL"),
)
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


# RFC 3986, section 3.2.1.
_USERINFO = re.compile(r"//[^/\s]*@")
# Of pydantic's complaints, as sentences whose subject is the value.
_MESSAGES = {
    "less_than_equal": "must be at most {le}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "decimal_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "is not a model name",
    "string_too_short": "must have at least {min_length} characters",
}
_SECRET = ("gemini_api_key", "access_tokens", "metrics_token", "results_secret")
_SQLITE = "sqlite:///"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()/-]*)?")
# Scheme, host and port, as a browser writes them: https://developer.mozilla.org/docs/Web/HTTP/Headers/Origin
_HOST = re.compile(r"\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+")
_DEFAULT_PORT = re.compile(r"(?<=^http://)(.*):80$|(?<=^https://)(.*):443$")


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line for a person."""


def _comma_separated(value: object) -> object:
    return tuple(filter(None, (item.strip() for item in value.split(",")))) if isinstance(value, str) else value


def _pairs(value: object) -> object:
    """Read `old=new,old=new`; an old name may hold `*` for any characters."""
    if not isinstance(value, str):
        return value
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    for old, _, new in pairs:
        if not MODEL_NAME.fullmatch(old.strip().replace("*", "x")) or not MODEL_NAME.fullmatch(new.strip()):
            raise ValueError("must be written old=new,old=new; * in an old name stands for any characters")
    return {old.strip(): new.strip() for old, _, new in pairs}


def _prices(value: object) -> object:
    """Read `model=image/text/input,…`."""
    if not isinstance(value, str):
        return value
    prices = {}
    for model, amounts in _unique_pairs(value, "model=image/text/input"):
        numbers = [_amount(amount) for amount in amounts.split("/")]
        if not MODEL_NAME.fullmatch(model) or len(numbers) != 3:
            raise ValueError("must be written model=image/text/input, in USD per million tokens")
        prices[model] = tuple(numbers)
    return prices


def _budgets(value: object) -> object:
    """Read `name=5/day,*=20/month`."""
    if not isinstance(value, str):
        return value
    budgets = {}
    for name, budget in _unique_pairs(value, "name=5/day"):
        amount, _, window = budget.partition("/")
        if window.strip() not in ("day", "month"):
            raise ValueError(f"must be written name=5/day or name=20/month; {name} has neither /day nor /month")
        budgets[name] = (_amount(amount), window.strip())
    return budgets


def _unique_pairs(value: str, form: str) -> list[tuple[str, str]]:
    """Read `name=…,name=…`; a name holds no comma and no equals sign."""
    pairs = [tuple(map(str.strip, item.split("=", 1))) for item in value.split(",") if item.strip()]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError(f"must be written {form}, separated by commas")
    names = [pair[0] for pair in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"has {twice} twice")
    return [(pair[0], pair[1]) for pair in pairs]


def _amount(text: str) -> Decimal:
    """Read an amount of USD."""
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise ValueError(f"has {text.strip()!r}, which is not an amount in USD") from None
    if not amount.is_finite() or not 0 <= amount <= MAX_USD:
        raise ValueError(f"has {text.strip()!r}; an amount must be from 0 to {MAX_USD} USD")
    return amount


def _check_for_httpx(address: str) -> None:
    """Return if httpx, which calls it, can read an address. Raises ValueError."""
    import httpx  # not at the top: few set an address, and the launcher would wait for it

    try:
        httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ValueError(f"is not an address: {error}") from None


def _has_possible_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]
Pairs = Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)]


class Settings(BaseSettings):
    """The settings of one process. Raises pydantic's ValidationError; `read` turns that into a sentence."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    # --- What everyone sets.
    # Google's API key, or several separated by commas: they are taken in turn.
    gemini_api_key: CommaSeparated = Field(default=(), repr=False)
    # One total deadline for a request, in seconds: waiting, retries and every one of its calls.
    request_timeout_seconds: float = Field(default=120, gt=0, le=3600)
    # Upstream calls at once, in each worker.
    max_connections: int = Field(default=100, ge=1, le=10_000)
    # Requests a caller may make in any 60 seconds, over all workers and routes.
    rate_limit_per_minute: int = Field(default=60, ge=1)
    # Processes that serve.
    workers: int = Field(default=4, ge=1, le=64)

    # --- Where it listens, and to whom (main.py, banana/http).
    # The address to listen on; 0.0.0.0 listens on all interfaces (the Docker image sets that itself).
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    # Whose X-Forwarded-For is trusted: addresses and networks separated by commas, or * for everybody's.
    forwarded_allow_ips: str = "127.0.0.1"
    # The address that people use, behind a reverse proxy: without tokens, browsers are served under no other name.
    public_url: str | None = None
    # Origins of other sites whose pages may use the service, separated by commas; * for all.
    cors_origins: CommaSeparated = ()
    # Hosts whose images are downloaded when a request names them by URL: names, *.example.com, * for all with public IP
    # addresses; a private IP address only where it is named as such.
    image_url_hosts: CommaSeparated = ()
    # Requests served at once, in each worker, /health aside; a hundred callers of a page are a hundred.
    max_requests: int = Field(default=2048, ge=1, le=100_000)
    # How long a caller may take without sending or reading one byte, in seconds; mobile networks pause for some.
    idle_seconds: float = Field(default=30, gt=0, le=3600)

    # --- How Google is called (banana/google, banana/images.py).
    # Where Gemini's API is, with its version; Vertex express mode: https://aiplatform.googleapis.com/v1/publishers/google
    gemini_base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    # The model of a request that names none.
    default_model: str = Field(default="gemini-3-pro-image-preview", pattern=rf"^{MODEL_NAME.pattern}$")
    # Names that are sent as other names: old=new,old=new; * in an old name stands for any characters.
    model_aliases: Pairs = Field(default=RETIRED_MODELS + OTHER_MODELS, validate_default=True)
    # Google's `store` flag: with false Google does not keep the requests. Unset: not sent (Vertex refuses it).
    gemini_store: bool | None = None
    # An HTTP proxy on the way to Google, as http://host:port. HTTPS_PROXY is not read, so that nothing is sent by surprise.
    upstream_proxy: str | None = None
    # The largest response of Google's in bytes; a 4K PNG is about 20 MB. Memory is bounded by MAX_CONNECTIONS times this.
    max_response_bytes: int = Field(default=67_108_864, ge=1024)
    # How long an unused connection to Google is kept, in seconds: shorter than any peer does, so that it is never closed
    # while a call is on its way. Google keeps 240 s, balancers and proxies often 60 s, some servers 5 s.
    upstream_idle_seconds: float = Field(default=4, gt=0, le=3600)
    # Calls that may wait for a free connection, in each worker; the next is answered 503 at once.
    max_waiting: int = Field(default=100, ge=0)
    # Retries of one upstream call, at most; a call that Google may have billed is never retried.
    retries: int = Field(default=2, ge=0, le=10)
    # Pause before the first retry, in seconds; doubled for each further one.
    retry_backoff_seconds: float = Field(default=0.5, ge=0, le=60)

    # --- Bodies and responses (banana/http, banana/routes).
    # The largest request body in bytes; Google's own limit is 100 MB.
    max_request_bytes: int = Field(default=104_857_600, ge=1024)
    # Bytes of bodies and responses that a worker holds before it takes no new request; what has begun goes on.
    max_buffered_bytes: int = Field(default=536_870_912, ge=1024)
    # Silence in seconds after which spaces are sent before the JSON, for proxies that cut idle connections; 0: never.
    keepalive_seconds: float = Field(default=0, ge=0, le=600)
    # How a chat gives its pictures: data (in the response, as data URIs) or url (links to pictures that are kept).
    chat_images: Literal["data", "url"] = "data"

    # --- Who may call, and how often (banana/admission).
    # Who may call: tokens separated by commas, each written token or name:token. None: anyone who reaches the address.
    access_tokens: CommaSeparated = Field(default=(), repr=False)
    # A token for /metrics alone, as Authorization: Bearer. None: whoever reaches the address may read it.
    metrics_token: str | None = Field(default=None, repr=False)
    # Where requests are counted: a file that the workers share, redis://host:port (Redis 7 or Valkey) across machines, or
    # memory:// for each worker by itself. Keys, tasks and costs are recorded beside the file, or in the same Redis.
    store_url: str = "sqlite:///.state/banana.db"
    # Where keys, tasks and costs are recorded: sqlite:///FILE. None: in ledger.db beside the store's file, or in its Redis.
    ledger_url: str | None = None

    # --- What it costs (banana/google/prices.py, banana/admission/budgets.py).
    # Prices that go before the built-in ones: model=image/text/input, in USD per million tokens.
    prices: Annotated[dict[str, tuple[Decimal, Decimal, Decimal]], NoDecode, BeforeValidator(_prices)] = {}
    # What callers may spend, in USD: name=5/day or name=20/month, separated by commas; * is for each that is not named.
    budgets: Annotated[dict[str, tuple[Decimal, Literal["day", "month"]]], NoDecode, BeforeValidator(_budgets)] = {}
    # What each API key may spend in any 10 minutes, in USD; Google lets a project of tier 1 spend 10. None: not counted.
    key_spend_per_10_minutes: Decimal | None = Field(default=None, gt=0, allow_inf_nan=False)

    # --- What is kept: results of requests with an Idempotency-Key, of tasks, and pictures given as links (banana/results).
    # For how long, in seconds; 0: nothing is kept, and what needs it is refused.
    keep_results_seconds: int = Field(default=86_400, ge=0, le=31_536_000)
    # How much, in bytes, over all workers: the oldest make room.
    keep_results_bytes: int = Field(default=2_147_483_648, ge=LEAST_KEPT_BYTES)
    # Where: a folder, or s3://bucket/prefix with any service that speaks S3, reached by the usual AWS_* variables.
    results_url: str = RESULTS_FOLDER
    # What links are signed with; where it is not set, the service makes a secret of its own. The same on all machines.
    results_secret: str | None = Field(default=None, min_length=16, repr=False)
    # One total deadline for a task, in seconds.
    task_timeout_seconds: float = Field(default=600, gt=0, le=3600)

    # --- The log (banana/logs.py).
    # The log, one JSON object a line; - is standard output (the Docker image sets that itself).
    log_file: str = "logs/app.log"
    # Size in bytes at which the log is renamed and a new one begun, 0: never; and how many old ones are kept.
    log_max_bytes: int = Field(default=100_000_000, ge=0)
    log_backups: int = Field(default=5, ge=1, le=100)
    # Whether prompts are logged.
    log_prompts: bool = False
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower_case)] = "info"

    # --- Trying it.
    # Answer from the built-in stand-in for Google's API, with demo pictures; no key, no cost.
    demo: bool = False

    @property
    def ledger_file(self) -> Path:
        """Where keys, tasks and costs are recorded when that is no Redis: where LEDGER_URL says, else beside the store."""
        if self.ledger_url:
            return Path(self.ledger_url.removeprefix(_SQLITE))
        folder = (
            Path(self.store_url.removeprefix("sqlite:///")).parent if self.store_url.startswith("sqlite:") else None
        )
        return (folder or STATE_FOLDER / (DEMO if self.demo else "")) / "ledger.db"

    @property
    def ledger_is_a_file(self) -> bool:
        """Whether keys, tasks and costs are recorded in a file of this machine."""
        return bool(self.ledger_url) or not self.store_url.startswith("redis")

    @property
    def aws_variables(self) -> dict[str, str]:
        """The AWS_* variables, by which S3 is reached; those of the environment go before those of `.env`."""
        found = {name: value or "" for name, value in dotenv_values(".env").items()} | dict(os.environ)
        return {name: value for name, value in found.items() if name.startswith("AWS_")}

    @property
    def keeps_in_s3(self) -> bool:
        """Whether anything is kept, and in S3."""
        return bool(self.keep_results_seconds) and self.results_url.startswith("s3:")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in no log: API keys, and tokens without the names in front of them."""
        tokens = (entry.rpartition(":")[2] for entry in self.access_tokens)
        return (*self.gemini_api_key, *tokens, *filter(None, (self.metrics_token, self.results_secret)))

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @field_validator("gemini_base_url", "upstream_proxy", "public_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme.startswith("socks"):
                raise ValueError(
                    "is a SOCKS proxy, which is not supported; give the HTTP port of your proxy: http://host:port"
                )
            if parts.scheme not in ("http", "https") or not parts.hostname or not _has_possible_port(parts):
                raise ValueError("is not an http:// or https:// address")
            _check_for_httpx(value)
        return value

    @field_validator("gemini_api_key", "access_tokens", "metrics_token")
    @classmethod
    def _can_be_a_header(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        for number, entry in enumerate((value,) if isinstance(value, str) else value or (), 1):
            for character in entry:
                if not character.isascii() or not character.isprintable() or character in " \"'`":
                    which = f"entry number {number} has " if isinstance(value, tuple) and len(value) > 1 else "has "
                    raise ValueError(
                        f"{which}{character!r}, which a key or token cannot have; remove quotes and spaces"
                    )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(_DEFAULT_PORT.sub(r"\1\2", origin.lower().removesuffix("/")) for origin in value)
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("is not a list of origins; write each as https://host or http://host:port")
        return origins

    @field_validator("image_url_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower().strip("[].") for host in value)
        for host, written in zip(hosts, value, strict=True):
            if "/" in host or not (_is_network(host) or _HOST.fullmatch(host)):
                raise ValueError(f"has {written!r}; write names of hosts, such as images.example.com, without https://")
        return tuple(str(ipaddress.ip_address(host)) if _is_network(host) else host for host in hosts)

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for item in value.split(","):
            if value != "*" and not _is_network(item.strip()):
                raise ValueError(f"has {item.strip()!r}, which is not an IP address or network")
        return value

    @field_validator("access_tokens")
    @classmethod
    def _has_tokens(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        tokens = [entry.rpartition(":")[2] for entry in value]
        for number, token in enumerate(tokens, 1):
            if not token:
                raise ValueError(f"entry number {number} has no token")
            if (first := tokens.index(token) + 1) < number:
                raise ValueError(f"entries number {first} and {number} have the same token; give each caller its own")
        return value

    @field_validator("access_tokens", mode="before")
    @classmethod
    def _has_any_token(cls, value: object) -> object:
        if isinstance(value, str) and not value.replace(",", "").strip():
            raise ValueError("has commas but no token (is a variable not set?); leave it empty to let everyone in")
        return value

    @field_validator("results_url")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        if _SCHEME.match(value) and not _BUCKET.fullmatch(value):
            raise ValueError("is neither a folder nor s3://bucket/prefix")
        return value

    @field_validator("store_url")
    @classmethod
    def _is_a_store(cls, value: str) -> str:
        if not value.startswith((_SQLITE, "memory://", "redis://", "rediss://", "redis+unix://")):
            raise ValueError("must be sqlite:///FILE, redis://HOST:PORT or memory://")
        return value

    @field_validator("ledger_url")
    @classmethod
    def _is_a_ledger(cls, value: str | None) -> str | None:
        if value is not None and not (value.startswith(_SQLITE) and value.removeprefix(_SQLITE)):
            raise ValueError("must be sqlite:///FILE")
        return value

    @model_validator(mode="after")
    def _has_a_key(self) -> "Settings":
        if not self.gemini_api_key and not self.demo:
            raise ValueError(
                "GEMINI_API_KEY is not set. Get a key at https://aistudio.google.com/apikey and add it to .env."
                f" To try the service without a key, {WITHOUT_A_KEY}."
            )
        return self


def read(directory: Path | None = None, **values: object) -> Settings:
    """Return the settings in force; `values` go before the environment. Raises SettingsError, in one line."""
    env_file = (directory or Path()) / ".env"
    try:
        if env_file.is_file() and b"\0" in env_file.read_bytes():
            raise SettingsError(".env is not UTF-8; save it as UTF-8")
        _check_names(dotenv_values(env_file), ".env")
        _check_names(filter(_is_slip, os.environ), "the environment")
        settings = Settings(_env_file=env_file, **values)  # type: ignore[arg-type,call-arg]
        if settings.demo:
            settings = settings.model_copy(update=_demo_state(settings))
        return settings
    except ValidationError as error:
        raise SettingsError("; ".join(map(_sentence, error.errors()))) from None
    except UnicodeDecodeError:
        raise SettingsError(".env is not UTF-8; save it as UTF-8") from None
    except PermissionError as error:
        raise SettingsError(f".env cannot be read: {error.strerror}") from None


def _is_slip(name: str) -> bool:
    """Return whether a name is one slip of the keyboard away from a setting in GUARDS; many others hold such words."""

    def shorter(longer: str) -> set[str]:
        return {longer[:at] + longer[at + 1 :] for at in range(len(longer))}

    name = name.upper()
    for meant in GUARDS:
        swapped = {meant[:at] + meant[at + 1] + meant[at] + meant[at + 2 :] for at in range(len(meant) - 1)}
        same_length = len(name) == len(meant) and sum(map(str.__ne__, name, meant)) == 1
        if name in shorter(meant) or meant in shorter(name) or (name in swapped and name != meant) or same_length:
            return True
    return False


def _demo_state(settings: Settings) -> dict[str, str | None]:
    """Return where the demo keeps what it has: in a place of its own beside that of the settings."""
    results = settings.results_url.rstrip("/")
    return {
        "store_url": _in_demo_folder(settings.store_url),
        "ledger_url": settings.ledger_url and _in_demo_folder(settings.ledger_url),
        "results_url": f"{STATE_FOLDER}/{DEMO}/results" if results == RESULTS_FOLDER else f"{results}/{DEMO}",
    }


def _in_demo_folder(url: str) -> str:
    """Return the address of a file of the same name in a folder for the demo; other addresses as they are."""
    if not url.startswith(_SQLITE):
        return url
    file = Path(url.removeprefix(_SQLITE))
    return f"{_SQLITE}{file.parent / DEMO / file.name}"


def unread_proxy(settings: Settings) -> str:
    """Return the name of a variable that gives programs a proxy which this one does not use; empty where there is none."""
    if settings.upstream_proxy or settings.demo:
        return ""
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    return next((name for name in names if os.environ.get(name)), "")


def unknown_names(names: Iterable[str]) -> dict[str, str]:
    """Return those of `names` that are no setting but almost one, each with that one."""
    known = [name.upper() for name in Settings.model_fields]
    unknown = (name for name in names if name.upper() not in known)
    pairs = ((name, difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)) for name in unknown)
    return {name: close[0] for name, close in pairs if close}


def _check_names(names: Iterable[str], place: str) -> None:
    """Refuse a setting that is written wrong; other names may be meant for other programs."""
    wrong = [
        f"{name} in {place} is not a setting. Did you mean {meant}?" for name, meant in unknown_names(names).items()
    ]
    if wrong:
        raise SettingsError(" ".join(wrong))


def without_userinfo(text: str) -> str:
    """Return `text` without the user and password of the addresses in it."""
    return _USERINFO.sub("//", text)


def _sentence(problem: ErrorDetails) -> str:
    template = _MESSAGES.get(problem["type"])
    message = template.format(**problem.get("ctx", {})) if template else problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    # An address may hold a password, however it is written wrong.
    given = "" if name in _SECRET or "@" in str(problem["input"]) else f"{str(problem['input'])!r} "
    return f"{name.upper()}: {given}{message}"
