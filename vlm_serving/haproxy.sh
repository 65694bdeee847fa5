#!/bin/sh
# HAProxy as Ray calls it (-db -f FILE ...), with nothing open to other machines: "bind :PORT" (metrics) and
# "bind *:PORT" (statistics) are what Ray's configuration binds to all addresses. See haproxy.py.
sed -i -E 's/^( *bind )\*?:/\1127.0.0.1:/' "$3" && exec "$VLM_HAPROXY_BINARY" "$@"
