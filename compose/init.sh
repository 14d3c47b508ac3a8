#!/usr/bin/env bash
# Write what the stack needs into .env: secrets at random, for each that is missing. What is there stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077
touch .env

has() { grep -qE "^$1=." .env; }
secret() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

added=()
add() { # NAME VALUE
    has "$1" && return
    if grep -q "^$1=" .env; then sed -i "s|^$1=.*|$1=$2|" .env; else printf '%s=%s\n' "$1" "$2" >>.env; fi
    added+=("$1")
}

[ -s .env ] || printf '# Settings and secrets of the stack. Keep a copy elsewhere; .env.example lists all settings.\n' >>.env
# A last line without its end would swallow the next one.
[ -z "$(tail -c 1 .env)" ] || echo >>.env
for name in POSTGRES_PASSWORD DB_PASSWORD DAGSTER_DB_PASSWORD GRAFANA_DB_PASSWORD PROXY_DB_PASSWORD GF_SECURITY_ADMIN_PASSWORD GATEWAY_SECRET; do
    add "$name" "$(secret)"
done
if ! has MONGO_URI; then # no MongoDB named: the stack brings one
    add MONGO_PASSWORD "$(secret)"
    add COMPOSE_PROFILES mongo
fi
chmod 600 .env

if ((${#added[@]})); then
    echo "Written to .env: ${added[*]}"
else
    echo ".env has all that the stack needs; nothing was changed."
fi
has MONGO_URI || echo "Readings come from a MongoDB of the stack. For your own: set MONGO_URI in .env and remove 'mongo' from COMPOSE_PROFILES."
echo "Next: make up"
