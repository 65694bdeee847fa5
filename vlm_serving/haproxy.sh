#!/bin/sh
# HAProxy as Ray calls it (-db -f FILE ...), with no door of its own open to other machines: "bind :PORT" (metrics) and
# "bind *:PORT" of its statistics are what Ray's configuration binds to all addresses. The service's own "bind" stays
# where the server was told to listen. Each application gets the rules of haproxy_rules.cfg. See haproxy.py.
sed -i -E "s/^( *bind ):/\1127.0.0.1:/; s/^( *bind )\*:${RAY_SERVE_HAPROXY_STATS_PORT}\$/\1127.0.0.1:${RAY_SERVE_HAPROXY_STATS_PORT}/
s/^global\$/global\n    set-var proc.replica_holds int(1000000)/
/^ *http-reuse always/r $(dirname "$0")/haproxy_rules.cfg" "$3" \
    && exec "$VLM_HAPROXY_BINARY" "$@"
