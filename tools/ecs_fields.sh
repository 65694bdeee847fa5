#!/usr/bin/env bash
# Look up in Elastic's own field table (npm @elastic/ecs) the type of every field that deploy/logging/ecs_fields.json names,
# and write it there; a name that ECS does not know is an error. To use another field: add it with any type, run this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=9.4.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "@elastic/ecs@$version" >/dev/null && tar xzf ./*.tgz)
node - "$work/package/generated/ecs_flat.js" deploy/logging/ecs_fields.json "$version" <<'NODE'
const fs = require("fs");
const [table, file, version] = process.argv.slice(2);
const ecs = require(table).EcsFlat;
const ours = JSON.parse(fs.readFileSync(file, "utf8"));
const names = Object.keys(ours.fields).sort();
const unknown = names.filter((name) => !(name in ecs));
if (unknown.length) { console.error(`not in ECS ${version}: ${unknown.join(", ")}`); process.exit(1); }
const fields = Object.fromEntries(names.map((name) => [name, { type: ecs[name].type, level: ecs[name].level }]));
const note = "Names and types out of npm @elastic/ecs, Copyright Elasticsearch B.V., Apache License 2.0; by tools/ecs_fields.sh.";
fs.writeFileSync(file, JSON.stringify({ licence: note, version, fields }, null, 1) + "\n");
NODE
