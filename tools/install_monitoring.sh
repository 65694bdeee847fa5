#!/usr/bin/env bash
# Prometheus, Alertmanager, the node exporter and rsyslog from Debian's packages, unpacked into .monitoring: no service
# is started, and the system gets two templates only. Where there is no apt it says so and ends well: what needs them is skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(prometheus prometheus-alertmanager prometheus-node-exporter rsyslog rsyslog-elasticsearch libestr0 libfastjson4)
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "no apt here: Prometheus, Alertmanager and rsyslog are not unpacked, their tests are skipped"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt downloads as a user of its own
download() { (cd "$work" && apt-get download "${packages[@]}") >"$work/log" 2>&1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

echo "Prometheus, Alertmanager, node exporter and rsyslog into .monitoring (35 MB to fetch, some seconds)"
if ! download && ! { as_root apt-get update >"$work/update" 2>&1 && download; }; then
    echo "they could not be fetched, their tests are skipped; the end of apt's output:" >&2
    tail -n 5 "$work/log" >&2
    exit 0
fi
rm -rf .monitoring
mkdir .monitoring
for package in "$work"/*.deb; do dpkg -x "$package" .monitoring; done

# Debian's Alertmanager looks for its templates in one place only, and does not start without.
templates=usr/share/prometheus/alertmanager
for name in default.tmpl email.tmpl; do
    if [ ! -e "/$templates/$name" ] && ! as_root install -D -m 644 ".monitoring/$templates/$name" "/$templates/$name"; then
        echo "/$templates cannot be written without root: no Alertmanager, its tests are skipped" >&2
        rm -f .monitoring/usr/bin/prometheus-alertmanager
    fi
done
