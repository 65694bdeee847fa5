"""Settings: bounds, contradictions, and what becomes of them in Ray Serve."""

import importlib
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import DeploymentSchema, HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from vlm_serving.config import ServingConfig
from vlm_serving.deploying import APPLICATION


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas 3 exceeds max_replicas 2"),
        ({"max_pictures": 300}, "max_pictures 300 exceeds max_waiting_pictures 128"),
        ({"ingress_min_replicas": 3}, "ingress_min_replicas 3 exceeds ingress_max_replicas 1"),
        ({"models": {"captioner": "/b"}}, "models names 'captioner', which is model_name already"),
        ({"deadline_s": 0}, "greater than 0"),
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


@pytest.mark.parametrize(
    ("cluster", "settings", "split"),
    [
        ({"CPU": 8}, {}, False),
        ({"CPU": 8, "GPU": 1}, {}, True),
        ({"CPU": 8, "GPU": 1}, {"num_gpus": 0}, False),
        ({"CPU": 8}, {"num_gpus": 0.5}, True),  # a GPU node may come later
        ({"CPU": 8}, {"max_replicas": 2}, True),
        ({"CPU": 8}, {"min_replicas": 0}, True),
        ({"CPU": 8}, {"split": True}, True),
        ({"CPU": 8, "GPU": 1}, {"split": False}, False),
    ],
)
def test_the_ingress_stands_apart_where_that_pays(
    cluster: dict[str, float], settings: dict[str, object], split: bool
) -> None:
    assert ServingConfig(**settings).is_split(cluster) is split


def test_models_and_ingress_scale_by_their_own_settings() -> None:
    config = ServingConfig(
        min_replicas=0, max_replicas=3, target_ongoing_requests=2, ingress_max_replicas=5, upscale_delay_s=1,
        ingress_target_ongoing_requests=20, downscale_delay_s=9, ingress_num_cpus=0.25, num_gpus=0.5,
    )  # fmt: skip
    models, ingress = config.deployment_options({"CPU": 8, "GPU": 1}), config.ingress_options()
    delays = {"upscale_delay_s": 1, "downscale_delay_s": 9}
    assert models["autoscaling_config"] == {
        "min_replicas": 0, "max_replicas": 3, "target_ongoing_requests": 2, **delays,
    }  # fmt: skip
    assert ingress["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 5, "target_ongoing_requests": 20, **delays,
    }  # fmt: skip
    assert models["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0.5}
    assert ingress["ray_actor_options"] == {"num_cpus": 0.25, "num_gpus": 0}
    assert (models["max_ongoing_requests"], models["max_queued_requests"]) == (16, -1)
    assert config.front_requests == 3 * 16 + 8


def test_an_ingress_that_is_full_asks_for_another() -> None:
    config = ServingConfig(ingress_max_replicas=2, ingress_target_ongoing_requests=1000)
    assert config.ingress_options()["autoscaling_config"]["target_ongoing_requests"] == config.front_requests / 2


@pytest.mark.parametrize("settings", [{}, {"max_replicas": 3}, {"max_queued_requests": 0, "max_ongoing_requests": 1}])
def test_rays_own_bounds_are_far_beyond_what_admission_lets_in(settings: dict[str, int]) -> None:
    """Ray counts a burst as queued for a moment and would refuse some of what there is room for."""
    config = ServingConfig.model_validate(settings)
    facing = config.ingress_options() if config.is_split({}) else config.deployment_options({})
    assert facing["max_ongoing_requests"] > config.front_requests < facing["max_queued_requests"]


def test_replicas_are_kept_apart_only_if_asked() -> None:
    together, apart = ServingConfig.model_validate({}), ServingConfig.model_validate({"max_replicas_per_node": 1})
    for options in (together.deployment_options({}), together.ingress_options()):
        assert "max_replicas_per_node" not in options
    for options in (apart.deployment_options({}), apart.ingress_options()):
        assert options["max_replicas_per_node"] == 1


def test_a_replica_has_two_batches_and_what_it_scales_by_or_what_is_set() -> None:
    def taken_in(**settings: object) -> int:
        return ServingConfig(split=True, **settings).deployment_options({})["max_ongoing_requests"]

    assert taken_in(max_batch_size=24) == 48
    assert taken_in(max_batch_size=2, target_ongoing_requests=20) == 40
    assert taken_in(max_ongoing_requests=7) == 7


def test_the_config_file_is_what_ray_and_the_builder_take() -> None:
    """Ray's own schema passes over keys that it does not know: they are compared here."""
    config = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "serve.yaml").read_text())
    parsed = ServeDeploySchema.model_validate(config)
    application = config["applications"][0]
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.model_fields)
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    assert all(set(one) <= set(DeploymentSchema.model_fields) for one in application["deployments"])
    args = ServingConfig.model_validate(parsed.applications[0].args)
    assert (parsed.applications[0].name, args.max_replicas) == (APPLICATION, 4)
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert args.deadline_s < config["http_options"]["request_timeout_s"]


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ServingConfig.model_fields.values())
