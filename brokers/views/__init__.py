"""Logging in at a broker from the browser, and tokens over REST; `brokers.urls` says where."""
