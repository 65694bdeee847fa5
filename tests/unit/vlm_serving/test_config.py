"""Settings: bounds, contradictions, and what becomes of them in Ray Serve."""

import pytest
from pydantic import ValidationError

from vlm_serving.config import ServingConfig


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas 3 exceeds max_replicas 2"),
        ({"max_pictures": 300}, "max_pictures 300 exceeds max_waiting_pictures 128"),
        ({"num_beams": 3}, "Extra inputs are not permitted"),  # comes with the bundle
        ({"attention": "flash"}, "'fused' or 'stock'"),
        ({"max_batch_size": 0}, "greater than or equal to 1"),
        ({"max_batchsize": 4}, "Extra inputs are not permitted"),
        ({"device": "tpu"}, "'auto', 'cpu' or 'cuda'"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        ServingConfig(**settings)


@pytest.mark.parametrize(
    ("cluster", "asked", "gpus"),
    [({"CPU": 8}, "auto", 0), ({"CPU": 8, "GPU": 2}, "auto", 1), ({"CPU": 8}, 0.5, 0.5), ({"GPU": 1}, 0, 0)],
)
def test_a_replica_takes_a_gpu_where_there_is_one(cluster: dict[str, float], asked: object, gpus: float) -> None:
    options = ServingConfig(num_gpus=asked).deployment_options(cluster)
    assert options["ray_actor_options"]["num_gpus"] == gpus


def test_the_replica_refuses_before_serve_does() -> None:
    config = ServingConfig(max_waiting_pictures=500)
    assert config.deployment_options({})["max_ongoing_requests"] > config.max_waiting_pictures


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ServingConfig.model_fields.values())
