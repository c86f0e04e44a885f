"""The settings: read from the environment and .env, refused with one line."""

from decimal import Decimal
from pathlib import Path

import pytest

import config


def test_dotenv_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both places are read; the environment goes first; an empty value is none."""
    Path(".env").write_text("GEMINI_API_KEY=a, b\nPORT=9000\nWORKERS=3\nGEMINI_STORE=\n")
    monkeypatch.setenv("PORT", "9001")

    settings = config.read()

    assert settings.gemini_api_key == ("a", "b")
    assert (settings.port, settings.workers, settings.gemini_store) == (9001, 3, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "GEMINI_API_KEY is not set. Get a key at https://aistudio.google.com/apikey and add it to .env."),
        ("WORKER=2", "WORKER in .env is not a setting. Did you mean WORKERS?"),
        ("ACCESS_TOKEN=x", "ACCESS_TOKEN in .env is not a setting. Did you mean ACCESS_TOKENS?"),
        ("FORWARDED_ALLOW_IPS=nonsense", "FORWARDED_ALLOW_IPS: 'nonsense' has 'nonsense', which is not an IP address"),
        ("FORWARDED_ALLOW_IPS=10.0.0.1,", "FORWARDED_ALLOW_IPS"),
        ("CORS_ORIGINS=app.example", "CORS_ORIGINS: 'app.example' is not a list of origins"),
        ("CORS_ORIGINS=https://app.example/path", "CORS_ORIGINS"),
        ("PUBLIC_URL=pictures.example.org", "PUBLIC_URL: 'pictures.example.org' is not an http:// or https:// address"),
        ("METRICS_TOKEN='two words'", "METRICS_TOKEN: has ' '"),
        ("ACCESS_TOKENS=${UNSET},${UNSET}", "ACCESS_TOKENS: has commas but no token"),
        ("CORS_ORIGINS=https://*.app.example", "CORS_ORIGINS: 'https://*.app.example' is not a list of origins"),
        ("GEMINI_API_KEY=`key`", "GEMINI_API_KEY: has '`'"),
        ("IDLE_SECONDS=0", "IDLE_SECONDS: '0'"),
        ("GEMINI_API_KEY='quoted key'", "GEMINI_API_KEY: has ' '"),
        ("GEMINI_API_KEY='\"quoted-key\"'", "GEMINI_API_KEY: has '\"'"),
        ("PORT=http", "PORT: 'http' must be a whole number"),
        ("PORT=0", "PORT: '0' must be at least 1"),
        ("PORT=99999", "PORT: '99999' must be at most 65535"),
        ("DEMO=maybe", "DEMO: 'maybe' must be true or false"),
        ("RESULTS_SECRET=short", "RESULTS_SECRET: must have at least 16 characters"),
        ("WORKERS=none", "WORKERS: 'none'"),
        ("REQUEST_TIMEOUT_SECONDS=-1", "REQUEST_TIMEOUT_SECONDS: '-1' must be more than 0"),
        ("REQUEST_TIMEOUT_SECONDS=2m", "REQUEST_TIMEOUT_SECONDS: '2m' must be a number"),
        ("RATE_LIMIT_PER_MINUTE=0", "RATE_LIMIT_PER_MINUTE: '0'"),
        ("GEMINI_BASE_URL=google", "GEMINI_BASE_URL: 'google' is not an http:// or https:// address"),
        (
            "GEMINI_BASE_URL=http://999.1.1.1/v1",
            "GEMINI_BASE_URL: 'http://999.1.1.1/v1' is not an address: Invalid IPv4 address: '999.1.1.1'",
        ),
        ("UPSTREAM_PROXY=localhost:7890", "UPSTREAM_PROXY"),
        ("GEMINI_BASE_URL=http://google:99999/v1", "GEMINI_BASE_URL: 'http://google:99999/v1' is not an http://"),
        ("MODEL_ALIASES=a-b", "MODEL_ALIASES: 'a-b' must be written old=new,old=new"),
        ("STORE_URL=mysql://x", "STORE_URL"),
        ("ACCESS_TOKENS=alice:s3cret,bob:", "ACCESS_TOKENS: entry number 2 has no token"),
        ("ACCESS_TOKENS=alice:t,bob:u,carl:t", "ACCESS_TOKENS: entries number 1 and 3 have the same token"),
        ("ACCESS_TOKENS=alice:t,bob:üb", "ACCESS_TOKENS: entry number 2 has 'ü'"),
        ("ACCESS_TOKENS=anna:${UNSET},b", "ACCESS_TOKENS: entry number 1 has no token"),
        ("LOG_LEVEL=loud", "LOG_LEVEL: 'loud' must be 'debug', 'info', 'warning' or 'error'"),
        ("DEFAULT_MODEL=a/b", "DEFAULT_MODEL: 'a/b' is not a model name"),
        ("BUDGETS=alice", "BUDGETS: 'alice' must be written name=5/day, separated by commas"),
        ("BUDGETS=alice=5", "alice has neither /day nor /month"),
        ("BUDGETS=alice=5/week", "must be written name=5/day or name=20/month"),
        ("BUDGETS=alice=x/day", "BUDGETS: 'alice=x/day' has 'x', which is not an amount in USD"),
        ("BUDGETS=alice=-5/day", "BUDGETS: 'alice=-5/day' has '-5'; an amount must be from 0 to"),
        ("BUDGETS=alice=nan/day", "has 'nan'"),
        ("BUDGETS=a=1/day,a=2/month", "BUDGETS: 'a=1/day,a=2/month' has a twice"),
        ("PRICES=m=1/2", "PRICES: 'm=1/2' must be written model=image/text/input, in USD per million tokens"),
        ("PRICES=m=1/2/1e9", "has '1e9'"),
        ("PRICES=m", "PRICES: 'm' must be written model=image/text/input, separated by commas"),
        ("PRICES=a b=1/2/3", "PRICES: 'a b=1/2/3' must be written"),
        ("KEY_SPEND_PER_10_MINUTES=0", "KEY_SPEND_PER_10_MINUTES: '0' must be more than 0"),
        ("KEY_SPEND_PER_10_MINUTES=inf", "KEY_SPEND_PER_10_MINUTES: 'inf'"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(line: str, words: str) -> None:
    """Whatever is wrong is named, in one line, without the key."""
    key = "" if not line or line.startswith("GEMINI_API_KEY") else "GEMINI_API_KEY=secret-key\n"
    Path(".env").write_text(f"{key}{line}\n")

    with pytest.raises(config.SettingsError) as caught:
        config.read()

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret-key" not in str(caught.value)
    assert "quoted key" not in str(caught.value)


def test_the_settings_do_not_show_the_key() -> None:
    """A repr of the settings, in a traceback say, holds no key."""
    assert "secret-key" not in repr(config.read(gemini_api_key=("secret-key",)))


def test_a_level_in_capitals_is_the_same_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG_LEVEL=INFO, as everybody else writes it."""
    monkeypatch.setenv("LOG_LEVEL", "WARNING")

    assert config.read(demo=True).log_level == "warning"


def test_a_file_in_another_encoding_is_one_line() -> None:
    """Notepad saves UTF-16 when it is asked for Unicode."""
    Path(".env").write_text("GEMINI_API_KEY=a\n", encoding="utf-16")

    with pytest.raises(config.SettingsError, match="save it as UTF-8"):
        config.read()


@pytest.mark.parametrize(
    "line",
    [
        "UPSTREAM_PROXY=ftp://anna:s3cret@proxy:1",
        "STORE_URL=mysql://anna:s3cret@db/x",
        "GEMINI_BASE_URL=http://anna:s3cret@google:99999",
    ],
)
def test_a_password_in_an_address_is_never_shown(line: str) -> None:
    """The address is named, without its user."""
    Path(".env").write_text(f"GEMINI_API_KEY=a\n{line}\n")

    with pytest.raises(config.SettingsError) as caught:
        config.read()

    assert "s3cret" not in str(caught.value)
    assert "//" in str(caught.value)


def test_names_of_other_programs_are_none_of_ours() -> None:
    """What is not almost a setting of ours may stand in .env for docker compose, or for anybody."""
    Path(".env").write_text(
        "GEMINI_API_KEY=k\nTZ=UTC\nOTEL_SERVICE_NAME=x\nCOMPOSE_PROJECT_NAME=x\nPUBLISH_ADDRESS=0.0.0.0\n"
    )

    assert config.read().gemini_api_key == ("k",)
    assert config.unknown_names(["WORKER", "WORKERS", "TZ", "HOSTNAME", "HOME", "workers"]) == {"WORKER": "WORKERS"}


def test_origins_are_understood_as_browsers_write_them() -> None:
    """In small letters and without a slash at the end; everybody's is *."""
    given = " https://App.Example:443/, http://localhost:3000,chrome-extension://abcdefgh , capacitor://localhost, *"

    assert config.read(gemini_api_key=("k",), cors_origins=given).cors_origins == (
        "https://app.example", "http://localhost:3000", "chrome-extension://abcdefgh", "capacitor://localhost", "*",
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["UPSTREAM_PROXY=user:hunter2@h:80", "GEMINI_BASE_URL=http:user:hunter2@h", "UPSTREAM_PROXY=ftp://u:hunter2/@h",
     "PUBLIC_URL=u:hunter2 x@h", "CORS_ORIGINS=https://u:hunter2@h", "STORE_URL=redis:/u:hunter2@h", "ACCESS_TOKENS=hunter2:"],
)  # fmt: skip
def test_no_password_is_shown_however_it_is_written(line: str) -> None:
    """A wrong address is named by its setting alone when it may hold one."""
    Path(".env").write_text(f"GEMINI_API_KEY=k\n{line}\n")
    with pytest.raises(config.SettingsError, match=line.partition("=")[0]) as caught:
        config.read()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("banana", False)])  # fmt: skip
def test_a_loopback_address_is_known(host: str, expected: bool) -> None:
    """Whatever it is."""
    assert config.read(gemini_api_key=("k",), host=host).on_loopback == expected


def test_prices_and_budgets_are_read() -> None:
    """Amounts as they are written, to the last digit; spaces around them are none."""
    Path(".env").write_text(
        "GEMINI_API_KEY=k\nPRICES=m=120/12/0.25, n = 1/2/3\nBUDGETS=alice=0.1/day, *=$20/month\nKEY_SPEND_PER_10_MINUTES=9.5\n"
    )
    settings = config.read()

    assert settings.prices == {
        "m": (Decimal(120), Decimal(12), Decimal("0.25")),
        "n": (Decimal(1), Decimal(2), Decimal(3)),
    }
    assert settings.budgets == {"alice": (Decimal("0.1"), "day"), "*": (Decimal(20), "month")}
    assert settings.key_spend_per_10_minutes == Decimal("9.5")


def test_how_s3_is_reached_is_read_as_every_setting_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, else from .env; nothing else is handed on."""
    Path(".env").write_text("GEMINI_API_KEY=k\nAWS_REGION=of-the-file\nAWS_ACCESS_KEY_ID=id\n")
    monkeypatch.setenv("AWS_REGION", "of-the-environment")

    assert config.read().aws_variables == {"AWS_REGION": "of-the-environment", "AWS_ACCESS_KEY_ID": "id"}
