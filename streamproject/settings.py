"""
Django's settings. What differs between installations comes from the environment and `.env`; `.env.example` lists it.

A value that makes no sense is one sentence (ImproperlyConfigured) here; what only shows in combination, or in the
world outside, is a system check in `marketdata.checks` and `brokers.checks`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from streamproject import env as environment
from streamproject import logs

BASE_DIR = Path(__file__).resolve().parent.parent

env = environment.load(
    Path(os.environ.get("STREAM_ENV_FILE") or BASE_DIR / ".env"), generated=("SECRET_KEY", "CREDENTIALS_KEY")
)
DATA_DIR = Path(env.text("STREAM_DATA_DIR", str(BASE_DIR)))

# ----------------------------------------------------------------------------------------------------- what you may set

WEBSOCKET_HOST = env.text("WEBSOCKET_HOST", "127.0.0.1")
WEBSOCKET_PORT = env.integer("WEBSOCKET_PORT", 8765, lowest=1, highest=65535)
ZMQ_HOST = env.text("ZMQ_HOST", "127.0.0.1")
ZMQ_PORT = env.integer("ZMQ_PORT", 5555, lowest=1, highest=65535)

MAX_SYMBOLS_PER_WEBSOCKET = env.integer("MAX_SYMBOLS_PER_WEBSOCKET", 1000, lowest=1)
MAX_WEBSOCKET_CONNECTIONS = env.integer("MAX_WEBSOCKET_CONNECTIONS", 3, lowest=1)
SYNC_INSTRUMENTS = env.flag("SYNC_INSTRUMENTS", default=True)

THROTTLE_MS = env.integer("THROTTLE_MS", 50)
if 0 < THROTTLE_MS < 50:
    raise ImproperlyConfigured(f"THROTTLE_MS is {THROTTLE_MS}; use 50 or more milliseconds, or 0 to send every tick.")
SLOW_CLIENT_S = env.seconds("SLOW_CLIENT_S", 10.0)
TICK_LANES = env.integer("TICK_LANES", 4, lowest=1, highest=256)

MAX_SYMBOLS_PER_KEY = env.integer("MAX_SYMBOLS_PER_KEY", 3000, lowest=1)
MAX_CONNECTIONS_PER_KEY = env.integer("MAX_CONNECTIONS_PER_KEY", 200, lowest=1)

ROOT_DIALECT = env.choice("ROOT_DIALECT", "NATIVE", ("NATIVE", "OPENALGO")).lower()
OPENALGO_PATHS = env.names("OPENALGO_PATHS")
for _path in OPENALGO_PATHS:
    if not re.fullmatch(r"(/[\w.~-]+)+/?", _path, re.ASCII) or _path.rstrip("/") == "/v1":
        raise ImproperlyConfigured(
            f"OPENALGO_PATHS holds {_path!r}; write paths such as /ws, without a query. "
            "/v1 stays native, and what / speaks is ROOT_DIALECT."
        )

REDIS_URL = env.redis_url("REDIS_URL")
DATABASES = {"default": env.database("DATABASE_URL", DATA_DIR)}

SECRET_KEY = env.text("SECRET_KEY")
SECRET_KEY_FALLBACKS = env.names("SECRET_KEY_FALLBACKS")
CREDENTIALS_KEYS = env.names("CREDENTIALS_KEY")

TRUSTED_PROXY = env.flag("TRUSTED_PROXY")
TLS_CERT = env.text("TLS_CERT")
TLS_KEY = env.text("TLS_KEY")
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
ALLOWED_ORIGINS = env.names("ALLOWED_ORIGINS")
ALLOW_REMOTE_ENDPOINTS = env.flag("ALLOW_REMOTE_ENDPOINTS")
ALERT_WEBHOOK_URL = env.url("ALERT_WEBHOOK_URL")

DEBUG = env.flag("DEBUG")
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))

# -------------------------------------------------------------------------------------------------------- what is fixed

# No "daphne": as an app it would install its reactor in every process, before uvloop's policy.
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "streamproject",
    "marketdata",
    "brokers",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "streamproject.urls"
ASGI_APPLICATION = "streamproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "marketdata.layers.RedisTickLayer",
            "CONFIG": {"hosts": [REDIS_URL], "lanes": TICK_LANES},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "marketdata.layers.LocalTickLayer"}}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

if TRUSTED_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = TRUSTED_PROXY or bool(TLS_CERT)
SESSION_COOKIE_NAME = "stream_sessionid"  # cookies know no ports: another Django on this host must not log us out
CSRF_COOKIE_NAME = "stream_csrftoken"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "Asia/Kolkata"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
# Straight from the apps' folders, without collectstatic, whatever DEBUG is.
WHITENOISE_USE_FINDERS = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    # Of each API key or user, counted in each server process: a search for every letter somebody types.
    "DEFAULT_THROTTLE_RATES": {"instruments": "600/min"},
}

logs.configure()
LOGGING = logs.logging_config(LOG_LEVEL)
