#!/bin/sh
# Run once by the postgres image, when its volume is empty: a database and an owner each for Dagster and MLflow.
set -eu
for name in dagster mlflow; do
    case $name in
    dagster) password=$DAGSTER_PG_PASSWORD ;;
    mlflow) password=$MLFLOW_PG_PASSWORD ;;
    esac
    psql -v ON_ERROR_STOP=1 -v name="$name" -v password="$password" --username postgres --dbname postgres <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
