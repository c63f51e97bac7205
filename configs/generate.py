"""Write the configurations of this folder: the parts they share stand here once.

DIRECT's YAML has no inheritance, and training, validation and inference read keys that are left out with different
defaults; so every file is complete, and comes from here: ``python configs/generate.py``.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
HEADER = "# Written by configs/generate.py; change that, not this.\n"

MASKS: dict[str, dict[str, Any]] = {
    "2d4x": {"name": "Gaussian2D", "accelerations": [4.0], "center_fractions": [0.02]},
    "2d6x": {"name": "Gaussian2D", "accelerations": [6.0], "center_fractions": [0.02]},
    "1d2x": {"name": "FastMRIEquispaced", "accelerations": [2.0], "center_fractions": [0.08]},
    "1d4x": {"name": "FastMRIEquispaced", "accelerations": [4.0], "center_fractions": [0.08]},
}
"""Gaussian2D meets its acceleration exactly; the equispaced mask is fastMRI's own."""

WRITTEN: dict[str, Any] = {"quantiles": [0.05, 0.25, 0.5, 0.75, 0.95], "save_samples": False}
"""What posterior files hold of the samples besides their moments."""


def transforms(mask: str, *, size: int, coils: int | None, scaling_key: str | None) -> dict[str, Any]:
    """Return every key that training, validation and inference would otherwise read with different defaults."""
    return {
        "masking": {**MASKS[mask], "range_mode": "DISCRETE", "mode": "STATIC"},
        "cropping": {"crop": "reconstruction_size", "crop_type": "uniform", "image_center_crop": True},
        "augmentation": {"pad": [size, size]},
        "padding_eps": 0.0001,
        "estimate_body_coil_image": False,
        "sensitivity_map_estimation": {
            "estimate_sensitivity_maps": True,
            "sensitivity_maps_type": "RSS_ESTIMATE",
            "sensitivity_maps_gaussian": 0.7,
        },
        # null: the engine applies the intensity scale, in training and inference alike.
        "normalization": {"scaling_key": scaling_key, "scale_percentile": 0.99},
        "delete_acs_mask": True,
        "delete_kspace": False,
        "image_recon_type": "SENSE_MOD",
        "compress_coils": coils,
        # The mask of a volume follows from its path: the same in every epoch, run and method.
        "use_seed": True,
        "transforms_type": "SUPERVISED",
    }


def dataset(kind: str, transform: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset of fastMRI files."""
    return {"name": "FastMRI", "text_description": kind, "transforms": transform}


def configuration(
    model: dict[str, Any], training: dict[str, Any], transform: dict[str, Any], *, inference_batch_size: int = 1
) -> dict[str, Any]:
    """Assemble a whole configuration."""
    metrics = ["fastmri_psnr", "fastmri_ssim", "fastmri_nmse"]
    return {
        "model": model,
        "physics": {"forward_operator": "fft2", "backward_operator": "ifft2"},
        "training": {"datasets": [dataset("training", transform)], **training},
        "validation": {
            "datasets": [dataset("validation", transform)],
            "batch_size": inference_batch_size,
            "metrics": metrics,
            "crop": None,
        },
        "inference": {
            "dataset": dataset("inference", transform),
            "batch_size": inference_batch_size,
            "metrics": metrics,
            "crop": None,
        },
        "logging": {"tensorboard": {"num_images": 4}, "log_interval": 20},
    }


def deepen_model(
    *,
    channels: int,
    warm_start: int,
    estimator: str = "map",
    random_phase: float = 0.0,
    num_samples: int = 16,
    num_steps: int = 100,
    map_steps: int = 8,
) -> dict[str, Any]:
    """Return DEEPEN with the quadratic energy."""
    return {
        "model_name": "deepen.energies.QuadraticEnergy",
        "engine_name": "DeepenEngine",
        "hidden_channels": channels,
        "num_layers": 5,
        "activation": "elu",
        # 1/(2c²), c = data_noise_factor: the temperature of the posterior.
        "weight": 0.25,
        "noise_std": 0.01,
        "noise_start_std": 0.1,
        "sense_regularization": 0.01,
        "coil_maps": "direct",
        "objective": {
            "warm_start_iterations": warm_start,
            "warm_start_noise_std": 0.1,
            "warm_start_energy_weight": 0.3,
            "data_noise_factor": 1.4142135623730951,
            "energy_penalty": 0.01,
            "random_phase": random_phase,
            "chains": {
                "noise": {"fraction": 0.0, "num_steps": 60, "map_steps": 0},
                "sense": {"fraction": 0.0, "num_steps": 15, "map_steps": 0},
                "persistent": {"fraction": 1.0, "num_steps": 15, "map_steps": map_steps},
                "step_size": None,
                "max_stored": 2048,
            },
            "guard": {"max_gap": 20.0, "max_curvature": 4.0, "interval": 10, "max_rollbacks": 10},
        },
        "inference": {
            "estimator": estimator,
            "prior_weight": 1.0,
            "tolerance": 1e-6,
            "max_iterations": 500,
            "num_samples": num_samples,
            "num_steps": num_steps,
            "keep": 4,
            # Chains from MAP need no burn-in to speak of: from SENSE 100 steps leave the mean a decibel short.
            "start": "map",
            "step_size": None,
            "preconditioner": None,
            "convolutions": "float32",
            "max_images": 32,
            **WRITTEN,
        },
    }


def system_model(
    name: str, *, channels: int, activation: str, objective: dict[str, Any], inference: dict[str, Any], **learned: float
) -> dict[str, Any]:
    """Return a system of the paper that is not DEEPEN."""
    return {
        "model_name": f"deepen.systems.{name}",
        "engine_name": f"{name}Engine",
        "hidden_channels": channels,
        "num_layers": 5,
        "activation": activation,
        **learned,
        "sense_regularization": 0.01,
        "coil_maps": "direct",
        "objective": {
            **objective,
            "random_phase": 0.0,
            "guard": {"max_gap": 20.0, "max_curvature": 4.0, "interval": 10, "max_rollbacks": 10},
        },
        "inference": inference,
    }


def muse_model(channels: int) -> dict[str, Any]:
    """Return MuSE: the energy of DEEPEN, trained by score matching alone."""
    return system_model(
        "MuSE",
        channels=channels,
        activation="elu",
        objective={"max_noise_std": 0.1, "image_energy_weight": 0.3},
        inference={"prior_weight": 1.0, "tolerance": 1e-6, "max_iterations": 500},
    )


def pnp_ista_model(channels: int) -> dict[str, Any]:
    """Return PnP-ISTA with the paper's noise level and stopping rule."""
    return system_model(
        "PnPISTA",
        channels=channels,
        activation="relu",
        objective={"noise_std": 0.01},
        inference={"step_size": 1.0, "tolerance": 1e-6, "max_iterations": 500},
    )


def elder_model(channels: int) -> dict[str, Any]:
    """Return ELDER with the paper's 30 steps."""
    return system_model(
        "ELDER",
        channels=channels,
        activation="elu",
        step_size=1.0,
        objective={},
        inference={"num_steps": 30},
    )


def mol_model(channels: int) -> dict[str, Any]:
    """Return MoL."""
    return system_model(
        "MoL",
        channels=channels,
        activation="relu",
        data_weight=10.0,
        objective={"monotonicity": 0.1, "barrier_weight": 1e-4, "barrier_iterations": 5},
        inference={"damping": 1.0, "tolerance": 1e-3, "max_iterations": 200, "data_weight_factor": 1.0},
    )


def diffusion_model(name: str, *, channels: list[int], num_blocks: int, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return a prior of all noise levels."""
    return {
        "model_name": f"deepen.systems.{name}",
        "engine_name": f"{name}Engine",
        "channels": channels,
        "num_blocks": num_blocks,
        "image_std": 0.3,
        "average_decay": 0.999,
        "sense_regularization": 0.01,
        "coil_maps": "direct",
        "objective": {
            "smallest_noise_std": 0.005,
            "largest_noise_std": 10.0,
            "random_phase": 0.0,
            "guard": {"max_gap": 20.0, "max_curvature": 4.0, "interval": 10, "max_rollbacks": 10},
            **sections["objective"],
        },
        # One sample, as validation takes it: a diffusion is slow.
        "inference": {"num_samples": 1, "max_images": 32, **WRITTEN, **sections["inference"]},
    }


def dps_model(channels: list[int], num_blocks: int, preconditioning: str) -> dict[str, Any]:
    """Return DPS with the paper's diffusion, and a twentieth of its steps."""
    model = diffusion_model(
        "DPS",
        channels=channels,
        num_blocks=num_blocks,
        objective={},
        inference={"num_steps": 50, "base": 25.0, "guidance": 1.0},
    )
    return {**model, "preconditioning": preconditioning}


def alps_model(channels: list[int], num_blocks: int, teacher: str, checkpoint: str) -> dict[str, Any]:
    """Return ALPS with the rule of its authors."""
    return diffusion_model(
        "ALPS",
        channels=channels,
        num_blocks=num_blocks,
        objective={
            "teacher_configuration": teacher,
            "teacher_checkpoint": checkpoint,
            "least_noise_share": 0.0,
            # The levels that inference goes through lie between 0.01 and 1.
            "largest_noise_std": 2.0,
        },
        inference={
            "rule": "conditional",
            "noise_std": 0.007,
            "num_levels": 10,
            "largest_noise_std": 1.0,
            "smallest_noise_std": 0.01,
            "exponent": 5.0,
            "inner_steps": 5,
            "step_size": 0.5,
        },
    )


SYSTEMS: dict[str, tuple[Callable[[int], dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    # name: (model, training at 320×320, training at 64×64: about ten minutes on a core)
    "muse": (
        muse_model,
        {"lr": 2e-3, "iterations": 12000, "lr_step_size": 400, "lr_gamma": 0.88, "every": 3999},
        {"lr": 2e-3, "iterations": 2800, "lr_step_size": 100, "lr_gamma": 0.88, "every": 1399},
    ),
    "pnp_ista": (
        pnp_ista_model,
        {"lr": 1e-3, "iterations": 12000, "lr_step_size": 400, "lr_gamma": 0.88, "every": 3999},
        {"lr": 1e-3, "iterations": 4000, "lr_step_size": 200, "lr_gamma": 0.85, "every": 1999},
    ),
    "elder": (
        elder_model,
        {"lr": 1e-3, "iterations": 8000, "lr_step_size": 400, "lr_gamma": 0.85, "every": 1999},
        # From the weights of MuSE: projects/comparison.
        {"lr": 5e-4, "iterations": 100, "lr_step_size": 25, "lr_gamma": 0.7, "every": 99},
    ),
    "mol": (
        mol_model,
        {"lr": 1e-3, "iterations": 8000, "lr_step_size": 400, "lr_gamma": 0.85, "every": 1999},
        {"lr": 2e-3, "iterations": 300, "lr_step_size": 50, "lr_gamma": 0.7, "every": 299},
    ),
}
"""What DEEPEN is compared with, on the same data."""


def varnet_model(*, cascades: int, filters: int, pull_layers: int) -> dict[str, Any]:
    """Return DIRECT's end-to-end variational network."""
    return {
        "model_name": "varnet.varnet.EndToEndVarNet",
        "engine_name": "EndToEndVarNetEngine",
        "num_layers": cascades,
        "regularizer_num_filters": filters,
        "regularizer_num_pull_layers": pull_layers,
        "regularizer_dropout": 0.0,
    }


def vsharp_model(*, steps: int, data_steps: int, filters: int, pull_layers: int) -> dict[str, Any]:
    """Return DIRECT's variable-splitting half-quadratic network (vSHARP)."""
    return {
        "model_name": "vsharp.vsharp.VSharpNet",
        "engine_name": "VSharpNetEngine",
        "num_steps": steps,
        "num_steps_dc_gd": data_steps,
        # The loss looks at the image of every step.
        "auxiliary_steps": -1,
        "initializer_channels": [16, 16, 32, 32],
        "image_unet_num_filters": filters,
        "image_unet_num_pool_layers": pull_layers,
    }


def training(
    *,
    lr: float,
    batch_size: int,
    iterations: int,
    lr_step_size: int,
    lr_gamma: float,
    warmup: int,
    every: int,
    losses: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the training section without its datasets."""
    return {
        "optimizer": "Adam",
        "lr": lr,
        "weight_decay": 0.0,
        "batch_size": batch_size,
        "lr_step_size": lr_step_size,
        "lr_gamma": lr_gamma,
        "lr_warmup_iter": warmup,
        "num_iterations": iterations,
        "validation_steps": every,
        "gradient_steps": 1,
        "gradient_clipping": 1.0,
        "loss": {"crop": None, "losses": losses or []},
        "checkpointer": {"checkpoint_steps": every},
    }


IMAGE_LOSSES = [{"function": "l1_loss", "multiplier": 1.0}, {"function": "ssim_loss", "multiplier": 1.0}]


def full_size(mask: str, estimator: str) -> dict[str, Any]:
    """Return DEEPEN for fastMRI brain data: 320×320, 12 coils, 64 channels."""
    return configuration(
        deepen_model(
            channels=64,
            warm_start=4000,
            estimator=estimator,
        ),
        training(
            lr=2e-3,
            batch_size=4,
            iterations=12000,
            lr_step_size=400,
            lr_gamma=0.88,
            warmup=100,
            # One less than the warm start: its end is validated and kept.
            every=3999,
        ),
        transforms(mask, size=320, coils=12, scaling_key=None),
    )


def small(
    estimator: str,
    *,
    warm_start: int,
    contrastive: int,
    lr_step_size: int,
    lr_gamma: float,
    num_samples: int,
    random_phase: float = 0.0,
    map_steps: int = 8,
) -> dict[str, Any]:
    """Return DEEPEN for phantoms of 64×64: 32 channels, minutes on two cores."""
    return configuration(
        deepen_model(
            channels=32,
            warm_start=warm_start,
            estimator=estimator,
            random_phase=random_phase,
            num_samples=num_samples,
            map_steps=map_steps,
        ),
        training(
            lr=2e-3,
            batch_size=4,
            iterations=warm_start + contrastive,
            lr_step_size=lr_step_size,
            lr_gamma=lr_gamma,
            warmup=20,
            # The end of the warm start is validated and kept.
            every=warm_start - 1,
        ),
        transforms("2d4x", size=64, coils=None, scaling_key=None),
        inference_batch_size=4,
    )


def demo(estimator: str) -> dict[str, Any]:
    """Return DEEPEN for the demo."""
    # At 2D 4x chains come to what MAP finds without its help, and ten minutes are short.
    return small(estimator, warm_start=300, contrastive=150, lr_step_size=25, lr_gamma=0.88, num_samples=8, map_steps=0)


def pretrained(estimator: str) -> dict[str, Any]:
    """Return the training of the weights that come with the package."""
    return small(
        estimator,
        warm_start=700,
        contrastive=1000,
        lr_step_size=50,
        lr_gamma=0.89,
        num_samples=16,
        # They are to serve with anybody's coil maps.
        random_phase=0.75,
        map_steps=0,
    )


def phantom_deepen() -> dict[str, Any]:
    """Return DEEPEN for the comparison on phantoms."""
    return small("map", warm_start=700, contrastive=500, lr_step_size=50, lr_gamma=0.9, num_samples=16)


def phantom_direct(model: dict[str, Any], *, lr: float, iterations: int, lr_step_size: int) -> dict[str, Any]:
    """Return a model of DIRECT's own for phantoms."""
    return configuration(
        model,
        training(
            lr=lr,
            batch_size=4,
            iterations=iterations,
            lr_step_size=lr_step_size,
            lr_gamma=0.5,
            warmup=20,
            every=iterations - 1,
            losses=IMAGE_LOSSES,
        ),
        transforms("2d4x", size=64, coils=None, scaling_key="masked_kspace"),
        inference_batch_size=4,
    )


def little_diffusion(iterations: int) -> dict[str, Any]:
    """Return the schedule of a diffusion for phantoms."""
    return {
        "iterations": iterations,
        "lr_step_size": iterations // 6,
        "lr_gamma": 0.6,
        "warmup": 50,
        "every": iterations - 1,
    }


def configurations() -> dict[str, dict[str, Any]]:
    """Return every configuration by the name of its file."""
    result = {f"deepen_{mask}.yaml": full_size(mask, "map") for mask in MASKS}
    result["phantom_deepen.yaml"] = phantom_deepen()
    for name, (model, large, little) in SYSTEMS.items():
        for mask in MASKS:
            result[f"{name}_{mask}.yaml"] = configuration(
                model(64),
                training(**large, batch_size=4, warmup=100),
                transforms(mask, size=320, coils=12, scaling_key=None),
            )
        result[f"phantom_{name}.yaml"] = configuration(
            model(32),
            training(**little, batch_size=4, warmup=20),
            transforms("2d4x", size=64, coils=None, scaling_key=None),
            inference_batch_size=4,
        )
    # Neither sees a mask in training: one configuration serves all.
    large = {"iterations": 100000, "lr_step_size": 20000, "lr_gamma": 0.5, "warmup": 500, "every": 9999}
    student = alps_model([32, 64, 128], 2, "configs/dps_2d4x.yaml", "runs/dps_2d4x/model_99999.pt")
    little_student = alps_model([16, 32, 64], 1, "configs/phantom_dps.yaml", "runs/sampling/dps/model_3999.pt")
    for name, size, model_section, lr, schedule in (
        ("dps_2d4x", 320, dps_model([64, 128, 256, 512], 4, "variance_exploding"), 1e-4, large),
        ("alps_2d4x", 320, student, 1e-4, large),
        ("phantom_dps", 64, dps_model([24, 48, 96], 1, "edm"), 1e-3, little_diffusion(4000)),
        ("phantom_alps", 64, little_student, 1e-3, little_diffusion(3000)),
    ):
        result[f"{name}.yaml"] = configuration(
            model_section,
            training(lr=lr, batch_size=4, **schedule),
            transforms("2d4x", size=size, coils=12 if size == 320 else None, scaling_key=None),
        )
    for name, steps in (("dps_2d4x", {"num_steps": 1000}), ("alps_2d4x", {})):
        posterior = deepcopy(result[f"{name}.yaml"])
        posterior["model"]["inference"].update({"num_samples": 16, **steps})
        result[f"{name}_posterior.yaml"] = posterior
    result["deepen_2d4x_posterior.yaml"] = full_size("2d4x", "posterior_mean")
    result["pretrained_2d4x.yaml"] = pretrained("map")
    result["pretrained_2d4x_posterior.yaml"] = pretrained("posterior_mean")
    of_direct = {
        "varnet": (varnet_model(cascades=8, filters=18, pull_layers=4), 5e-4),
        "vsharp": (vsharp_model(steps=8, data_steps=8, filters=32, pull_layers=4), 5e-4),
    }
    for name, (model_section, lr) in of_direct.items():
        result[f"{name}_2d4x.yaml"] = configuration(
            model_section,
            training(
                lr=lr,
                batch_size=4,
                iterations=50000,
                lr_step_size=11000,
                lr_gamma=0.5,
                warmup=500,
                every=1000,
                losses=IMAGE_LOSSES,
            ),
            transforms("2d4x", size=320, coils=12, scaling_key="masked_kspace"),
        )
    result["demo_deepen.yaml"] = demo("map")
    result["demo_deepen_posterior.yaml"] = demo("posterior_mean")
    small_varnet = varnet_model(cascades=5, filters=16, pull_layers=2)
    result["demo_varnet.yaml"] = phantom_direct(small_varnet, lr=3e-3, iterations=400, lr_step_size=100)
    result["phantom_varnet.yaml"] = phantom_direct(small_varnet, lr=2e-3, iterations=2600, lr_step_size=500)
    result["phantom_vsharp.yaml"] = phantom_direct(
        vsharp_model(steps=5, data_steps=5, filters=16, pull_layers=2), lr=2e-3, iterations=450, lr_step_size=100
    )
    return result


def text_of(content: dict[str, Any]) -> str:
    """Return the text of a configuration file."""
    return HEADER + yaml.safe_dump(content, sort_keys=False)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, content in configurations().items():
        (FOLDER / name).write_text(text_of(content), encoding="utf-8")
