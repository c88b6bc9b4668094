-- One connection for each request: wrk reconnects when the server closes.
wrk.headers["Connection"] = "close"
