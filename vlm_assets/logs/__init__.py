"""What Dagster and other programs print, as lines of JSON in ECS names."""
