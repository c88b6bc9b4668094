# Varnish 6.1 or newer in front of flashpy: varnishd -f /etc/varnish/varnish.vcl -p http_gzip_support=off
# flashpy's side of it:
#
#     [server]
#     listen = ["127.0.0.1:8080"]
#     trusted_proxies = ["127.0.0.1"]
#
#     [[site.rule]]
#     match = "/**"
#     cache = "10m"          # how long Varnish may answer without asking; it takes 2m where nothing is said
#
# http_gzip_support=off: otherwise Varnish asks for gzip and nothing else, so that .br and .zst siblings
# are never sent, and unpacks what it got for clients that do not take it.
vcl 4.1;

import std;

backend flashpy {
    .host = "127.0.0.1";
    .port = "8080";
    # Instead, with trusted_proxies = ["unix:"]:
    # .path = "/run/flashpy/web.sock";
}

sub vcl_recv {
    # Varnish itself has added the client to X-Forwarded-For. What else clients claim must not come through.
    unset req.http.Forwarded;
    set req.http.X-Forwarded-Host = req.http.Host;
    # "https" where whoever is in front of Varnish ends TLS.
    set req.http.X-Forwarded-Proto = "http";
    # Files depend on no cookie, and with one Varnish would not look into its cache.
    unset req.http.Cookie;
    # Browsers write one wish in many ways. What has weights is left as it is.
    if (req.http.Accept-Encoding ~ "(?i)(^|[ ,])br *(,|$)") {
        set req.http.Accept-Encoding = "br";
    } else if (req.http.Accept-Encoding ~ "(?i)(^|[ ,])gzip *(,|$)") {
        set req.http.Accept-Encoding = "gzip";
    }
    # Large files go straight through, and their ranges to flashpy, no faster than the client takes them. What is
    # only not cached (`pass`) Varnish fetches at once and holds until the client has it.
    if (req.url ~ "^/downloads/") {
        return (pipe);
    }
}

sub vcl_backend_response {
    # Kept for so long after it is too old, to be asked for with If-None-Match; a 304 makes it fresh again.
    set beresp.keep = 1h;
    # Other large files go past the cache. From Varnish 7.3 on `-p transit_buffer=1M` limits what it holds of each.
    if (beresp.status == 200 && std.integer(beresp.http.Content-Length, 0) > 50000000) {
        return (pass(10m));
    }
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
}
